"""Calendar days and periods in a time zone. Days are ordinals (`date.toordinal()`), comparable in any database."""

from __future__ import annotations

from calendar import monthrange
from datetime import date, datetime, timedelta
from datetime import time as midnight
from typing import Final
from zoneinfo import ZoneInfo

PERIODS: Final = ("day", "week", "month")


def bounds(period: str, day: int) -> tuple[int, int]:
    """First and last day of the period that contains a day. Weeks begin on Monday."""
    at = date.fromordinal(day)
    if period == "day":
        return day, day
    if period == "week":
        first = day - at.weekday()
        return first, first + 6
    if period == "month":
        return at.replace(day=1).toordinal(), at.replace(day=monthrange(at.year, at.month)[1]).toordinal()
    raise ValueError(f"{period} is no period")


def parse_day(text: object) -> date | None:
    """The day that a text such as `2026-11-28` means; None if it is none, or not between the years 2000 and 3000."""
    try:
        day = date.fromisoformat(text.strip()) if isinstance(text, str) and text.isascii() else None
    except ValueError:
        return None
    return day if day is not None and 2000 <= day.year < 3000 else None


class Days:
    """Maps times to days of a time zone. Caches the bounds of the last day, so that a lookup costs two comparisons."""

    def __init__(self, zone: str) -> None:
        self._zone = ZoneInfo(zone)
        self._day, self._from, self._until = 0, 0.0, 0.0

    def of(self, seconds: float) -> int:
        """The day of a time in seconds since 1970."""
        if not self._from <= seconds < self._until:
            today = datetime.fromtimestamp(seconds, self._zone).date()
            self._from = datetime.combine(today, midnight(), self._zone).timestamp()
            self._until = datetime.combine(today + timedelta(days=1), midnight(), self._zone).timestamp()
            self._day = today.toordinal()
        return self._day

    def end_of(self, period: str, seconds: float) -> float:
        """The end of the period that contains a time, both in seconds since 1970."""
        last = bounds(period, self.of(seconds))[1]
        return datetime.combine(date.fromordinal(last + 1), midnight(), self._zone).timestamp()
