"""Publishes what this worker is serving, for the admin's page of running requests.

Workers share only the database. The page announces itself in the change feed; from then on every worker writes its
running requests once a second, until the page has been closed for a while. Otherwise a worker writes one row every half
minute. Requests to end a running request go through the change feed as well.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.conf import settings

from portal.lib import clock
from portal.lib.processes import open_files, resident_bytes
from portal.services.timeouts import refusals
from relay.billing.ledger.writer import writer
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.watchdog import Watchdog
from relay.models import Worker

WATCHED_SECONDS: Final = 15.0  # for which each request of the page counts
_IDLE_INTERVAL: Final = 30.0
_WATCHED_INTERVAL: Final = 1.0
_MAX_LISTED: Final = 300  # requests of one worker that are listed, the oldest first


class WorkerStatus:
    """The status of one worker in the database. Belongs to one event loop."""

    def __init__(self, worker: str, watchdog: Watchdog, upstreams: Callable[[], dict[str, int]]) -> None:
        """`upstreams`: counts of connections to them."""
        self._worker, self._watchdog, self._upstreams = worker, watchdog, upstreams
        self._started = datetime.now(UTC)
        self._watched_until = self._next = 0.0

    def watched(self) -> None:
        """The page of running requests is open."""
        now = time.monotonic()
        if now >= self._watched_until:
            self._next = now
        self._watched_until = now + WATCHED_SECONDS

    async def publish(self, stopping: bool) -> None:
        """Write the status if it is due. Raises RelayUnavailable."""
        now = time.monotonic()
        if now < self._next:
            return
        watched = now < self._watched_until
        self._next = now + (_WATCHED_INTERVAL if watched else _IDLE_INTERVAL)
        running = sorted(self._watchdog.running, key=lambda exchange: exchange.started)
        listed = (
            [exchange.progress() for exchange in running[:_MAX_LISTED] if exchange.progress is not None]
            if watched
            else []
        )
        state = {
            "running": len(running),
            "stopping": stopping,
            "relay_only": settings.RELAY_ONLY,
            "tasks": len(asyncio.all_tasks()),
            "files": open_files(),
            "rss_mib": round(resident_bytes() / 1_048_576, 1),
            **self._upstreams(),
            "database": {"waiting": writer.waiting, "refused": refusals.number},
        }
        await snapshot_cache.in_thread(_save, self._worker, self._started, listed, state)

    async def leave(self) -> None:
        await snapshot_cache.in_thread(_remove, self._worker)


def _save(worker: str, started: datetime, running: list[dict[str, Any]], state: dict[str, Any]) -> None:
    now = clock.now()
    Worker.objects.update_or_create(
        name=worker,
        defaults={
            "host": socket.gethostname()[:120],
            "pid": os.getpid(),
            "started_at": started,
            "seen_at": now,
            "running": running,
            "state": state,
        },
    )
    Worker.objects.filter(seen_at__lt=now - timedelta(days=1)).delete()


def _remove(worker: str) -> None:
    Worker.objects.filter(name=worker).delete()
