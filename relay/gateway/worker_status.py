"""What this worker is serving, for people who look. While nobody does, it is one row every half minute.

Workers share nothing but the database: somebody who looks announces it in the change feed, and every worker writes down its running
requests once a second from then on, until nobody has looked for a while. A request that shall end is announced there, too.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from portal.lib import clock
from portal.lib.processes import open_files, resident_bytes
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.watchdog import Watchdog
from relay.models import Worker

WATCHED_SECONDS: Final = 15.0  # after each look
_IDLE_SECONDS: Final = 30.0
_EVERY: Final = 1.0
_MOST: Final = 300  # requests of one worker that are listed, the oldest first


class WorkerStatus:
    """Belongs to one event loop."""

    def __init__(self, worker: str, watchdog: Watchdog) -> None:
        self._worker, self._watchdog = worker, watchdog
        self._started = datetime.now(UTC)
        self._watched_until = self._next = 0.0

    def watched(self) -> None:
        """Somebody looks at the running requests."""
        now = time.monotonic()
        if now >= self._watched_until:
            self._next = now
        self._watched_until = now + WATCHED_SECONDS

    async def publish(self, stopping: bool) -> None:
        """Write what is running, when it is time. Raises RelayUnavailable."""
        now = time.monotonic()
        if now < self._next:
            return
        looked_at = now < self._watched_until
        self._next = now + (_EVERY if looked_at else _IDLE_SECONDS)
        running = sorted(self._watchdog.running, key=lambda exchange: exchange.started)
        listed = [exchange.progress() for exchange in running[:_MOST] if exchange.progress is not None] if looked_at else []
        state = {"running": len(running), "stopping": stopping, "tasks": len(asyncio.all_tasks()), "files": open_files(), "rss_mib": round(resident_bytes() / 1_048_576, 1)}
        await snapshot_cache.in_thread(_save, self._worker, self._started, listed, state)

    async def leave(self) -> None:
        await snapshot_cache.in_thread(_remove, self._worker)


def _save(worker: str, started: datetime, running: list[dict[str, Any]], state: dict[str, Any]) -> None:
    now = clock.now()
    Worker.objects.update_or_create(
        name=worker, defaults={"host": socket.gethostname()[:120], "pid": os.getpid(), "started_at": started, "seen_at": now, "running": running, "state": state}
    )
    Worker.objects.filter(seen_at__lt=now - timedelta(days=1)).delete()


def _remove(worker: str) -> None:
    Worker.objects.filter(name=worker).delete()
