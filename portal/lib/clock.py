"""The one place that reads the clock, so that tests can move time."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> datetime:
    """Wall-clock time, aware, UTC."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds that never go back, for durations."""
    return time.monotonic()
