"""Pages of requests, newest first, by keyset: the next page begins after the time and id of the last row.

Filters that an index answers (user, token, channel) are followed along that index. Any other filter is applied to a
bounded number of records for each page, so that no page takes long, however rare the matches; the page says how far it
has searched, and its cursor continues there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.db.models import Q, QuerySet

SCAN_SIZE: Final = 12_000  # records that one query searches
MAX_SCANS: Final = 4  # for one page
# Microseconds since 1970 and id of the last row; of a page of several tables, the number of its table, too.
_CURSOR: Final = re.compile(r"([0-9]{1,17})-([0-9]{1,18})(?:-([0-9]))?")


@dataclass(frozen=True, slots=True)
class UsagePage:
    """One page of requests."""

    rows: list[Any]
    before: str  # cursor of the next page, empty when there is none
    until: datetime | None = None  # the search stopped at this time, None: everything was searched


def usage_page(rows: QuerySet[Any], narrowed: Q | None, before: str, size: int) -> UsagePage:
    """Return at most `size` rows with a `started_at`, of those of `rows` that also match `narrowed`.

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


def merged_page(sources: Sequence[tuple[QuerySet[Any], Q | None]], before: str, size: int) -> UsagePage:
    """Return one page of the rows of several tables, each given with its condition as `usage_page` takes it.

    Of rows of the same time, those of the first table come first.
    """
    cursor = _CURSOR.fullmatch(before)
    pages = [
        usage_page(rows, narrowed, _cursor_within(cursor, rank), size) for rank, (rows, narrowed) in enumerate(sources)
    ]
    # Further back than this, not every table has been searched.
    floor = max((page.until for page in pages if page.until is not None), default=None)
    found = sorted(
        (
            (row.started_at, -rank, row.pk, row)
            for rank, page in enumerate(pages)
            for row in page.rows
            if floor is None or row.started_at >= floor
        ),
        key=lambda one: one[:3],
        reverse=True,
    )
    rows = [row for *_, row in found[:size]]
    if len(found) > size or (floor is None and any(page.before for page in pages)):
        _, rank, _, last = found[size - 1]
        return UsagePage(rows, f"{_cursor_of(last)}-{-rank}")
    if floor is not None:
        return UsagePage(rows, f"{_microseconds(floor)}-0-{len(sources) - 1}", floor)
    return UsagePage(rows, "")


def _cursor_within(cursor: re.Match[str] | None, rank: int) -> str:
    """The cursor of one table for that of a merged page."""
    if cursor is None:
        return ""
    at, last = int(cursor[1]), int(cursor[3] or 0)
    if rank == last:
        return f"{at}-{cursor[2]}"
    return f"{at}-0" if rank < last else f"{at + 1}-0"  # its rows of that time have been shown, or are still to come


def _before(rows: QuerySet[Any], at: datetime, pk: int) -> QuerySet[Any]:
    return rows.filter(started_at__lte=at).exclude(started_at=at, pk__gte=pk)


def _cursor_of(record: Any) -> str:
    return f"{_microseconds(record.started_at)}-{record.pk}"


def _microseconds(at: datetime) -> int:
    whole = at - datetime(1970, 1, 1, tzinfo=UTC)
    return (whole.days * 86_400 + whole.seconds) * 1_000_000 + whole.microseconds


def _datetime(microseconds: int) -> datetime:
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(min(seconds, 99_999_999_999), UTC).replace(microsecond=rest)
