"""Deletes usage records that are older than USAGE_KEEP_DAYS. Sums by day, the ledger and its proofs stay as they are.

Whole days are deleted, a bounded number of rows in each transaction, and only rows that have been rolled up: sums of
days before `RollupMark.kept_from` are all that is left of them. What the deleted rows have charged is kept by user in
`RemovedUsage`, in the same transaction, so that `relay.billing.ledger.verify` still finds the whole of it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from datetime import date, datetime, timedelta
from datetime import time as midnight
from itertools import chain
from typing import Final
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db import connection, transaction

from portal.lib import clock
from relay.models import Lease, RemovedUsage, RollupMark, UsageRecord
from relay.usage import rollup
from relay.usage.sessions.sum_table import SumTable

_AT_ONCE: Final = 500  # rows of one transaction
_MOST_PENDING: Final = 20_000  # records that are looked at: of more it is not known how old they are
_LEASE: Final = "old usage"
_LEASE_SECONDS: Final = 90.0
_SUMS: Final = SumTable(RemovedUsage, ("user_id",), ("records", "cost", "shortfall"))


def work(stopping: Callable[[], bool] = lambda: False) -> None:
    """Run one round of deleting unless another worker does, and close the database connection."""
    try:
        delete_expired(stopping)
    finally:
        connection.close()


def delete_expired(stopping: Callable[[], bool] = lambda: False) -> int:
    """Delete the records of days that are not kept any more. Returns how many."""
    keep = settings.CONFIG.usage_keep_days
    if not keep:
        return 0
    zone = ZoneInfo(settings.TIME_ZONE)
    first = clock.now().astimezone(zone).date() - timedelta(days=keep)
    before = datetime.combine(first, midnight(), zone)
    whole = 0
    while not stopping() and Lease.hold(_LEASE, _LEASE_SECONDS):
        deleted = _delete_some(first, before)
        if not deleted:
            break
        whole += deleted
        time.sleep(0.02)  # lets others write: SQLite looks now and then whether it may
    return whole


def _is_pending(mark: RollupMark, pk: int) -> bool:
    """Whether a record has not been rolled up: it is new, or was not there yet when those behind it were."""
    return pk > mark.last_id or any(low <= pk <= high for low, high, _seen in mark.gaps)


def _any_pending(mark: RollupMark, before: datetime) -> bool:
    """Whether a record from before a time may be pending.

    Read by ids: looked for by their time, all records that are to be deleted would be read, again and again.
    """
    rows = UsageRecord.objects.order_by("pk").values_list("started_at", flat=True)
    newest = list(rows.filter(pk__gt=mark.last_id)[:_MOST_PENDING])
    late = (at for low, high, _seen in mark.gaps for at in rows.filter(pk__gte=low, pk__lte=high))
    return len(newest) == _MOST_PENDING or any(at < before for at in chain(newest, late))


def _delete_some(first: date, before: datetime) -> int:
    """Delete some records that began before a time, the beginning of the first day that is kept. Returns how many."""
    if not UsageRecord.objects.filter(started_at__lt=before).exists():
        return 0
    with transaction.atomic():
        mark = rollup.lock_mark()
        if mark is None:
            return 0  # somebody rolls up; the next round goes on
        if mark.kept_from < first.toordinal() and _any_pending(mark, before):
            return 0  # they are rolled up first
        rows = UsageRecord.objects.filter(started_at__lt=before).order_by("started_at")
        found = [
            row
            for row in rows.values_list("pk", "user_id", "cost", "shortfall")[:_AT_ONCE]
            if not _is_pending(mark, row[0])  # one that came late
        ]
        sums: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
        for _pk, user, cost, shortfall in found:
            for index, value in enumerate((1, cost, shortfall)):
                sums[user or 0][index] += value
        if found and mark.kept_from < first.toordinal():
            RollupMark.objects.filter(pk=mark.pk).update(kept_from=first.toordinal())
        _SUMS.upsert((user, *values) for user, values in sorted(sums.items()))
        UsageRecord.objects.filter(pk__in=[pk for pk, *_ in found]).delete()
    return len(found)
