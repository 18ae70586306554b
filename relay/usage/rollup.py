"""Adds usage records up by day. Each record is counted once: the sums and how far they reach are written in one transaction.

Servers do it every half minute, and a page that shows sums does what is left before it reads them. Records may become visible out of the
order of their ids (two hosts on PostgreSQL), so ids that are missing are remembered for a day and looked for again.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Any, Final

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import Max, Q, Sum

from accounts.transactions import one_state
from portal.lib.days import Days
from relay.models import ChannelDay, Lease, MonthSum, RollupMark, TallyDay, UsageRecord, UserDay

logger: Final = logging.getLogger(__name__)
_CHUNK: Final = 2000
_LEASE: Final = "usage sums"
_LEASE_SECONDS: Final = 90.0
_AT_ONCE: Final = 4000  # records that a page adds up before it is shown
_GAP_SECONDS: Final = 86_400.0
_MOST_GAPS: Final = 500
_STEP: Final = math.log(1.19)  # classes of first-token times are 19 % wide

FAULTS: Final = frozenset(("no_channel", "upstream_error", "timeout", "truncated", "internal_error", "shutdown"))
_FIELDS: Final = (
    "pk", "started_at", "user_id", "token_id", "channel_id", "model", "status", "end_reason", "error_code", "input_tokens", "cached_input_tokens", "output_tokens",
    "cost", "shortfall", "upstream_cost", "first_token_ms",
)  # fmt: skip
SUMS: Final = ("requests", "failed", "faults", "input", "cached", "output", "charged", "upstream_cost")
_NOTHING: Final = (0,) * len(SUMS)
_USER: Final = ("user_id", "day", "token_id", "model")
_CHANNEL: Final = ("day", "channel_id", "model")
_MONTH: Final = ("kind", "month", "subject")
_TALLY: Final = ("kind", "day", "channel_id", "model", "value")


def bucket(milliseconds: int) -> int:
    """The class of a duration."""
    return max(0, round(math.log(max(1, milliseconds)) / _STEP))


def middle(of: int) -> int:
    """The duration that stands for a class, in milliseconds."""
    return round(math.exp(of * _STEP))


def percentile(tally: dict[int, int], share: float) -> int | None:
    """The duration below which a share of the requests stayed, from counts by class."""
    left = share * sum(tally.values())
    for of in sorted(tally):
        left -= tally[of]
        if left <= 0:
            return middle(of)
    return None


def work(stopping: Callable[[], bool] = lambda: False) -> None:
    """A round of a server: everything that waits, if no other worker is at it."""
    try:
        while not stopping() and behind() and Lease.hold(_LEASE, _LEASE_SECONDS) and _step():
            time.sleep(0.02)  # whoever writes records comes first
    finally:
        connection.close()


def catch_up() -> int:
    """What a page does before it reads sums. Returns how many records are still to be added up, 0 but after a long standstill."""
    try:
        done = 0
        while done < _AT_ONCE and (found := _step()):
            done += found
        if done < _AT_ONCE:
            return 0
    except DatabaseError:  # busy, or not to be written now: the sums are shown as they are
        logger.warning("usage could not be added up for a page", exc_info=True)
    return behind()


def rebuild(progress: Callable[[int], None] = lambda _: None) -> int:
    """Forget all sums and add everything up again. Returns how many records there were."""
    with transaction.atomic():
        mark = RollupMark.objects.select_for_update().first() or RollupMark.objects.create(pk=1)
        for table in (UserDay, ChannelDay, MonthSum, TallyDay):
            table.objects.all()._raw_delete(using=connection.alias)
        mark.last_id, mark.gaps = 0, []
        mark.save()
    done = 0
    while found := _step():
        done += found
        progress(done)
    return done


def differences() -> list[str]:
    """Where the sums differ from the records, in words; empty when they agree. Adds everything up, so it takes its time."""
    catch_up()
    mark = RollupMark.objects.first() or RollupMark()
    users: dict[Any, list[int]] = defaultdict(lambda: list(_NOTHING))
    channels: dict[Any, list[int]] = defaultdict(lambda: list(_NOTHING))
    for row in UsageRecord.objects.filter(pk__lte=mark.last_id).values_list(*_FIELDS).iterator(5000):
        _add(users, channels, defaultdict(int), row, _days())
    found = []
    for table, names, expected in ((UserDay, _USER, users), (ChannelDay, _CHANNEL, channels), (MonthSum, _MONTH, _months(users))):
        kept = {row[: len(names)]: row[len(names) :] for row in table.objects.values_list(*names, *SUMS).iterator(5000)}
        for key in sorted(kept.keys() | expected.keys(), key=str):
            if tuple(kept.get(key, _NOTHING)) != tuple(expected.get(key, _NOTHING)):
                found.append(f"{table.__name__} {dict(zip(names, key, strict=True))}: {tuple(kept.get(key, _NOTHING))} instead of {tuple(expected.get(key, _NOTHING))}")
    return found


_zone: dict[str, Days] = {}


def _days() -> Days:
    return _zone.setdefault(settings.TIME_ZONE, Days(settings.TIME_ZONE))


def _mark() -> RollupMark | None:
    """The mark, locked; None when somebody else holds it (but on SQLite, where one waits)."""
    skip = connection.features.has_select_for_update_skip_locked
    found = RollupMark.objects.select_for_update(skip_locked=skip).first()
    if found is None and not RollupMark.objects.exists():
        RollupMark.objects.get_or_create(pk=1)
        found = RollupMark.objects.select_for_update(skip_locked=skip).first()
    return found


def _step() -> int:
    """Add some records up. Returns how many; 0 when there is nothing left, or somebody else is at it."""
    mark = RollupMark.objects.first()
    last, gaps = (mark.last_id, mark.gaps) if mark is not None else (0, [])
    rows, left = _read(last, gaps)
    if not rows and left == gaps:
        return 0
    users: dict[Any, list[int]] = defaultdict(lambda: list(_NOTHING))
    channels: dict[Any, list[int]] = defaultdict(lambda: list(_NOTHING))
    tally: dict[Any, int] = defaultdict(int)
    for row in rows:
        _add(users, channels, tally, row, _days())
    with transaction.atomic():
        current = _mark()
        if current is None or (current.last_id, current.gaps) != (last, gaps):
            return 0  # somebody else has added these up meanwhile
        _upsert(UserDay._meta.db_table, _USER, SUMS, ((*key, *sums) for key, sums in sorted(users.items())))
        _upsert(ChannelDay._meta.db_table, _CHANNEL, SUMS, ((*key, *sums) for key, sums in sorted(channels.items())))
        _upsert(MonthSum._meta.db_table, _MONTH, SUMS, ((*key, *sums) for key, sums in sorted(_months(users).items())))
        _upsert(TallyDay._meta.db_table, _TALLY, ("count",), ((*key, count) for key, count in sorted(tally.items())))
        current.last_id, current.gaps = max(last, max((row[0] for row in rows), default=0)), left
        current.save()
    return len(rows)


def of_token(user_id: int, token_id: int) -> dict[int, list[int]]:
    """What a token used, by day (an ordinal) in the order of `SUMS`; what is not added up yet is counted from its records. Reads, and writes nothing."""
    found: dict[int, list[int]] = defaultdict(lambda: list(_NOTHING))
    with one_state():
        mark = RollupMark.objects.first() or RollupMark()
        for day, *sums in UserDay.objects.filter(user_id=user_id, token_id=token_id).values_list("day").annotate(*(Sum(name) for name in SUMS)).order_by():
            found[day] = [int(value) for value in sums]
        waiting = Q(pk__gt=mark.last_id)
        for first, end, _seen in mark.gaps:
            waiting |= Q(pk__gte=first, pk__lte=end)
        late: dict[Any, list[int]] = defaultdict(lambda: list(_NOTHING))
        for row in UsageRecord.objects.filter(waiting, token=token_id).values_list(*_FIELDS):
            _add(late, defaultdict(lambda: list(_NOTHING)), defaultdict(int), row, _days())
    for (_user, day, _token, _model), more in late.items():
        found[day] = [one + other for one, other in zip(found[day], more, strict=True)]
    return dict(found)


def month_of(day: int) -> int:
    """The number of the month that a day lies in."""
    at = date.fromordinal(day)
    return at.year * 12 + at.month - 1


def _months(users: dict[Any, list[int]]) -> dict[Any, list[int]]:
    """The same by user and by token and month."""
    found: dict[Any, list[int]] = defaultdict(lambda: list(_NOTHING))
    for (user, day, token, _model), sums in users.items():
        for key in (("user", month_of(day), user), ("token", month_of(day), token)):
            whole = found[key]
            for index, value in enumerate(sums):
                whole[index] += value
    return found


def _read(last: int, gaps: Sequence[Sequence[float]]) -> tuple[list[Any], list[Any]]:
    """Records that are to be added up, and the gaps that are left then."""
    now = time.time()
    left: list[Any] = []
    rows: list[Any] = []
    for first, end, seen in gaps:
        late = list(UsageRecord.objects.filter(pk__gte=first, pk__lte=end).order_by("pk").values_list(*_FIELDS)) if now - seen < _GAP_SECONDS else []
        rows += late
        if now - seen < _GAP_SECONDS:
            left += _holes([row[0] for row in late], int(first) - 1, int(end) + 1, seen)
    fresh = list(UsageRecord.objects.filter(pk__gt=last).order_by("pk").values_list(*_FIELDS)[:_CHUNK])
    if fresh and not (last == 0 and not gaps):  # what lies before the first record ever is no gap
        left += _holes([row[0] for row in fresh], last, fresh[-1][0], now)
    elif fresh:
        left += _holes([row[0] for row in fresh], fresh[0][0], fresh[-1][0], now)
    return rows + fresh, left[-_MOST_GAPS:]


def _holes(ids: Iterable[int], before: int, after: int, seen: float) -> list[list[float]]:
    found: list[list[float]] = []
    for pk in [*ids, after]:
        if pk > before + 1:
            found.append([before + 1, pk - 1, seen])
        before = max(before, pk)
    return found


def _add(users: dict[Any, list[int]], channels: dict[Any, list[int]], tally: dict[Any, int], row: Any, days: Days) -> None:
    _, at, user, token, channel, model, status, reason, code, into, cached, out, cost, shortfall, upstream, first = row
    day = days.of(at.timestamp())
    fault = reason in FAULTS
    failed = fault or status >= 400
    values = (1, int(failed), int(fault), into, cached, out, cost - shortfall, upstream)
    for table, key in ((users, (user or 0, day, token or 0, model)), (channels, (day, channel or 0, model))):
        sums = table[key]
        for index, value in enumerate(values):
            sums[index] += value
    if failed:
        tally["error", day, channel or 0, model, f"{reason}:{code}"[:90]] += 1
    elif first is not None:
        tally["first", day, channel or 0, model, str(bucket(first))] += 1


def _upsert(table: str, key: Sequence[str], sums: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Insert rows, or add to those that are there."""
    quote = connection.ops.quote_name
    columns = ", ".join(quote(name) for name in (*key, *sums))
    if connection.vendor == "mysql":
        conflict = "ON DUPLICATE KEY UPDATE " + ", ".join(f"{quote(name)} = {quote(name)} + VALUES({quote(name)})" for name in sums)
    else:
        adds = ", ".join(f"{quote(name)} = {quote(table)}.{quote(name)} + excluded.{quote(name)}" for name in sums)
        conflict = f"ON CONFLICT ({', '.join(quote(name) for name in key)}) DO UPDATE SET {adds}"
    values = list(rows)
    if values:
        sql = f"INSERT INTO {quote(table)} ({columns}) VALUES ({', '.join(['%s'] * len(values[0]))}) {conflict}"  # noqa: S608  # names of ours
        with connection.cursor() as cursor:
            cursor.executemany(sql, values)


def behind() -> int:
    """How many records wait to be added up."""
    mark = RollupMark.objects.first()
    newest = UsageRecord.objects.aggregate(newest=Max("pk"))["newest"] or 0
    return int(max(0, newest - (mark.last_id if mark else 0)))
