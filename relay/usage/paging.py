"""Pages of usage records, newest first, by keyset: the moment and id of the last row shown are where the next page begins.

What an index answers (whose, through what, everything) is followed along it. Any further filter is searched through a bounded number of
records at a time, so that no page takes long however rare what it looks for; the page says how far it has looked, and where to go on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.db.models import Q, QuerySet

from relay.models import UsageRecord

WINDOW: Final = 12_000  # records that one query looks through
WINDOWS: Final = 4
_PLACE: Final = re.compile(r"(\d{1,17})-(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Page:
    """`before`: where the next page begins, empty when there is none. `until`: the search stopped at that moment without having seen everything."""

    rows: list[Any]
    before: str
    until: datetime | None = None


def page_of(rows: QuerySet[UsageRecord], narrowed: Q | None, before: str, size: int) -> Page:
    """At most `size` records of `rows`, which an index answers, that also meet `narrowed`."""
    ordered = rows.order_by("-started_at", "-pk")
    place = _PLACE.fullmatch(before)
    if place is not None:
        ordered = _before(ordered, _moment(int(place[1])), int(place[2]))
    if narrowed is None:
        found = list(ordered[: size + 1])
        return Page(found[:size], _place(found[size - 1]) if len(found) > size else "")
    found = []
    for _ in range(WINDOWS):
        edge = next(iter(ordered.values_list("started_at", flat=True)[WINDOW : WINDOW + 1]), None)
        part = ordered.filter(narrowed)
        if edge is not None:
            part = part.filter(started_at__gte=edge)
        found += part[: size + 1 - len(found)]
        if len(found) > size:
            return Page(found[:size], _place(found[size - 1]))
        if edge is None:
            return Page(found, "")
        ordered, last = _before(ordered, edge, 0), edge  # the rows of that very moment were in the window
    return Page(found, f"{_microseconds(last)}-0", last)


def _before(rows: QuerySet[UsageRecord], at: datetime, pk: int) -> QuerySet[UsageRecord]:
    return rows.filter(started_at__lte=at).exclude(started_at=at, pk__gte=pk)


def _place(record: Any) -> str:
    return f"{_microseconds(record.started_at)}-{record.pk}"


def _microseconds(at: datetime) -> int:
    whole = at - datetime(1970, 1, 1, tzinfo=UTC)
    return (whole.days * 86_400 + whole.seconds) * 1_000_000 + whole.microseconds


def _moment(microseconds: int) -> datetime:
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(min(seconds, 99_999_999_999), UTC).replace(microsecond=rest)
