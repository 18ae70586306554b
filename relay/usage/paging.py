"""Pages of usage records, newest first, by keyset: the next page begins after the time and id of the last row.

Filters that an index answers (user, token, channel) are followed along that index. Any other filter is applied to a
bounded number of records for each page, so that no page takes long, however rare the matches; the page says how far it
has searched, and its cursor continues there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.db.models import Q, QuerySet

from relay.models import UsageRecord

SCAN_SIZE: Final = 12_000  # records that one query searches
MAX_SCANS: Final = 4  # for one page
_CURSOR: Final = re.compile(r"(\d{1,17})-(\d{1,18})")


@dataclass(frozen=True, slots=True)
class UsagePage:
    """One page of usage records."""

    rows: list[Any]
    before: str  # cursor of the next page, empty when there is none
    until: datetime | None = None  # the search stopped at this time, None: everything was searched


def usage_page(rows: QuerySet[UsageRecord], narrowed: Q | None, before: str, size: int) -> UsagePage:
    """Return at most `size` records of `rows` that also match `narrowed`.

    `rows` must be filtered by what an index answers, `narrowed` by the rest. `before` is the cursor of a page, empty
    for the first.
    """
    ordered = rows.order_by("-started_at", "-pk")
    cursor = _CURSOR.fullmatch(before)
    if cursor is not None:
        ordered = _before(ordered, _datetime(int(cursor[1])), int(cursor[2]))
    if narrowed is None:
        found = list(ordered[: size + 1])
        return UsagePage(found[:size], _cursor_of(found[size - 1]) if len(found) > size else "")
    found = []
    for _ in range(MAX_SCANS):
        edge = next(iter(ordered.values_list("started_at", flat=True)[SCAN_SIZE : SCAN_SIZE + 1]), None)
        part = ordered.filter(narrowed)
        if edge is not None:
            part = part.filter(started_at__gte=edge)
        found += part[: size + 1 - len(found)]
        if len(found) > size:
            return UsagePage(found[:size], _cursor_of(found[size - 1]))
        if edge is None:
            return UsagePage(found, "")
        ordered, last = _before(ordered, edge, 0), edge  # the rows of exactly that time have been searched
    return UsagePage(found, f"{_microseconds(last)}-0", last)


def _before(rows: QuerySet[UsageRecord], at: datetime, pk: int) -> QuerySet[UsageRecord]:
    return rows.filter(started_at__lte=at).exclude(started_at=at, pk__gte=pk)


def _cursor_of(record: Any) -> str:
    return f"{_microseconds(record.started_at)}-{record.pk}"


def _microseconds(at: datetime) -> int:
    whole = at - datetime(1970, 1, 1, tzinfo=UTC)
    return (whole.days * 86_400 + whole.seconds) * 1_000_000 + whole.microseconds


def _datetime(microseconds: int) -> datetime:
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(min(seconds, 99_999_999_999), UTC).replace(microsecond=rest)
