"""The one place that reads the clock, so that tests can move time."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> datetime:
    """Wall-clock time, aware, UTC."""
    return datetime.now(UTC)


def epoch() -> float:
    """Seconds since 1970, for comparisons on the request path (a datetime costs ten times as much)."""
    return time.time()


def monotonic() -> float:
    """Seconds that never go back, for durations."""
    return time.monotonic()
