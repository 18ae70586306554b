"""The clock, read in one place so that tests can move time."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The current time in UTC, timezone-aware."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds of a monotonic clock, for durations."""
    return time.monotonic()
