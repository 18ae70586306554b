"""Liveness and readiness probes, for load balancers and `docker run --health-cmd`."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from django.conf import settings
from django.db import DatabaseError, InterfaceError, transaction
from django.http import HttpRequest, JsonResponse

from portal.lib import clock
from portal.serving.first_run import migrations_missing
from relay.gateway.runtime import current
from relay.models import Worker

logger = logging.getLogger(__name__)
_TRY_SECONDS: Final = 1.0
_trying = threading.Lock()
_tried_at, _written = float("-inf"), True


async def healthz(request: HttpRequest) -> JsonResponse:
    """Liveness: the process responds. Checks nothing else."""
    return JsonResponse({"ok": True, "name": "AIRelays Portal", "version": settings.VERSION})


def readyz(request: HttpRequest) -> JsonResponse:
    """Readiness: the database is migrated and takes writes, Redis responds if configured, the portal is not stopping.

    `change_seen` is the id of the newest configuration change that this worker has applied.
    """
    problems = []
    try:
        if migrations_missing():
            problems.append("migrations are outstanding: run “python manage.py migrate”")
        elif not _can_write():
            problems.append("the database takes no writes: its disk is full, it is read-only, or it is locked")
    except (DatabaseError, InterfaceError):
        problems.append("the database does not answer")
    if settings.CONFIG.redis_url and not _redis_answers():
        problems.append("Redis does not answer")
    running = current()
    if running is not None and running.stopping:
        problems.append("the portal is stopping")
    seen = running.position if running is not None else None
    return JsonResponse(
        {"ready": not problems, "problems": problems, "change_seen": seen}, status=503 if problems else 200
    )


def _can_write() -> bool:
    """Whether the database takes writes, tried at most once a second: anybody may ask, and each try is a commit.

    Requests are charged for before they are answered, so a database that can only be read answers none.
    """
    global _tried_at, _written
    if not _trying.acquire(blocking=False):
        return _written
    try:
        if time.monotonic() - _tried_at >= _TRY_SECONDS:
            running = current()
            with transaction.atomic():
                Worker.objects.filter(name=running.health.worker if running is not None else "").update(
                    seen_at=clock.now()
                )
            _tried_at, _written = time.monotonic(), True
    except DatabaseError as error:
        logger.error("the database takes no writes: %s", error)
        _tried_at, _written = time.monotonic(), False
    finally:
        _trying.release()
    return _written


def _redis_answers() -> bool:
    import redis  # imported only where Redis is configured

    try:
        with redis.Redis.from_url(settings.CONFIG.redis_url, socket_timeout=2, socket_connect_timeout=2) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
