"""Liveness and readiness probes, for load balancers and `docker run --health-cmd`."""

from __future__ import annotations

from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, JsonResponse

from portal.serving.first_run import migrations_missing
from relay.gateway.runtime import current


async def healthz(request: HttpRequest) -> JsonResponse:
    """Liveness: the process responds. Checks nothing else."""
    return JsonResponse({"ok": True, "name": "AIRelays Portal", "version": settings.VERSION})


def readyz(request: HttpRequest) -> JsonResponse:
    """Readiness: the database responds and is migrated, Redis responds if configured, the portal is not stopping.

    `change_seen` is the id of the newest configuration change that this worker has applied.
    """
    problems = []
    try:
        if migrations_missing():
            problems.append("migrations are outstanding: run “python manage.py migrate”")
    except DatabaseError:
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


def _redis_answers() -> bool:
    import redis  # imported only where Redis is configured

    try:
        with redis.Redis.from_url(settings.CONFIG.redis_url, socket_timeout=2, socket_connect_timeout=2) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
