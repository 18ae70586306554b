"""Classes of first-token times, which sums by day count, and percentiles of them. Pure."""

from __future__ import annotations

import math
from typing import Final

_CLASS_WIDTH: Final = math.log(1.19)  # each class is 19 % longer than the one before


def class_of(milliseconds: int) -> int:
    """Return the class of a duration."""
    return max(0, round(math.log(max(1, milliseconds)) / _CLASS_WIDTH))


def duration_of(number: int) -> int:
    """Return the duration that stands for a class, in milliseconds."""
    return round(math.exp(number * _CLASS_WIDTH))


def percentile(tally: dict[int, int], share: float) -> int | None:
    """Return the duration in milliseconds that a share (0 to 1) of the requests did not exceed.

    `tally`: counts by class.
    """
    left = share * sum(tally.values())
    for number in sorted(tally):
        left -= tally[number]
        if left <= 0:
            return duration_of(number)
    return None
