"""Numbers in texts that strangers wrote."""

from __future__ import annotations

import pytest

from portal.lib.days import parse_day
from portal.lib.texts import LARGEST_ID, whole_number


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0), ("7", 7), (" 7 ", 7), ("007", 7), (7, 7), (str(LARGEST_ID), LARGEST_ID), (str(LARGEST_ID + 1), None),
        ("²", None), ("٣", None), ("9" * 5000, None), (10**400, None), ("-1", None), ("--5", None), ("-", None),
        ("", None), ("1.0", None), (1.0, None), (True, None), (None, None), ("1e3", None), ("\x001", None), ([], None),
    ],
)  # fmt: skip
def test_a_whole_number_is_ascii_digits_that_a_column_can_hold(value: object, expected: int | None) -> None:
    assert whole_number(value) == expected


def test_a_whole_number_keeps_its_bounds() -> None:
    assert [whole_number(text, -1, 5) for text in ("-1", "-2", "5", "6")] == [-1, None, 5, None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-28", "2026-11-28"), ("9999-12-31", None), ("0001-01-01", None), ("2026-02-30", None), ("²", None),
        ("", None), (None, None), ("2026-11-28T00:00", None), ("٢٠٢٦-11-28", None),
    ],
)  # fmt: skip
def test_a_day_is_one_that_every_time_zone_has(text: object, expected: str | None) -> None:
    found = parse_day(text)
    assert (found and found.isoformat()) == expected
