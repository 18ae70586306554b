"""Whether another process of this portal serves its pages and does its jobs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from portal.lib import clock
from relay.models import Worker

logger: Final = logging.getLogger(__name__)
_SEEN: Final = timedelta(seconds=90)  # of workers, which write their row twice a minute
_FIRST_SECONDS: Final = 120.0  # after the start: others may start at the same time
_AGAIN_SECONDS: Final = 3600.0  # between two warnings
_next = time.monotonic() + _FIRST_SECONDS


def look_for_others(stop: Callable[[], bool]) -> None:
    """Warn, at most once an hour, when only processes that only relay have been seen. Raises DatabaseError."""
    global _next
    now = time.monotonic()
    if now < _next or others():
        return
    _next = now + _AGAIN_SECONDS
    logger.warning(
        "no process of this portal serves its pages and does its jobs: no notice is sent, no usage added up, nothing "
        "that has expired deleted, no channel tested. Run `serve` without --relay-only on this database, too."
    )


def others() -> bool:
    """Whether a worker that serves pages has been seen lately."""
    states = Worker.objects.filter(seen_at__gte=clock.now() - _SEEN).values_list("state", flat=True)
    return any(not state.get("relay_only") for state in states)
