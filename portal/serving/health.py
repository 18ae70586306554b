"""Liveness and readiness, for load balancers and for `docker run --health-cmd`."""

from __future__ import annotations

from django.conf import settings
from django.db import DatabaseError
from django.http import HttpRequest, JsonResponse

from portal.serving.first_run import migrations_missing
from relay.gateway.runtime import current


async def healthz(request: HttpRequest) -> JsonResponse:
    """The process answers. Looks at nothing else."""
    return JsonResponse({"ok": True, "name": "AIRelays Portal", "version": settings.VERSION})


def readyz(request: HttpRequest) -> JsonResponse:
    """The process can serve: its database answers and has no migration outstanding, and so does Redis, where one is configured.

    `change_seen` is the newest configuration change that this worker has taken over.
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
    return JsonResponse({"ready": not problems, "problems": problems, "change_seen": seen}, status=503 if problems else 200)


def _redis_answers() -> bool:
    import redis  # loaded only where it is used

    try:
        with redis.Redis.from_url(settings.CONFIG.redis_url, socket_timeout=2, socket_connect_timeout=2) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
