"""Days and periods in a time zone."""

from __future__ import annotations

from portal.lib.days import Days, bounds


def test_days_and_periods() -> None:
    days = Days("Europe/Berlin")
    from datetime import UTC, date, datetime

    late = datetime(2026, 3, 28, 22, 59, 59, tzinfo=UTC).timestamp()  # 23:59:59 in Berlin; the next day has 23 hours
    assert days.of(late) == date(2026, 3, 28).toordinal()
    assert days.of(late + 1) == date(2026, 3, 29).toordinal()
    assert days.of(late + 1 + 23 * 3600) == date(2026, 3, 30).toordinal()
    assert days.of(late) == date(2026, 3, 28).toordinal(), "an earlier moment after a later one"
    sunday = date(2026, 11, 22).toordinal()
    assert bounds("day", sunday) == (sunday, sunday)
    assert bounds("week", sunday) == (sunday - 6, sunday)
    assert bounds("month", sunday) == (date(2026, 11, 1).toordinal(), date(2026, 11, 30).toordinal())
    assert bounds("month", date(2024, 2, 10).toordinal())[1] == date(2024, 2, 29).toordinal()
    assert days.end_of("month", late) == datetime(2026, 3, 31, 22, tzinfo=UTC).timestamp()
