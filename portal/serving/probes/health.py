"""Liveness and readiness probes, for load balancers and `docker run --health-cmd`."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.http import HttpRequest, JsonResponse

from portal import limits
from portal.lib import clock
from portal.services import redis
from portal.services.migrations import migrations_missing
from portal.services.timeouts import statement_timeout
from relay.billing.ledger.writer import writer
from relay.errors import RelayUnavailable
from relay.gateway.exchange.exchange import AsgiScope, Receive, Send
from relay.gateway.runtime import current
from relay.models import Worker

logger = logging.getLogger(__name__)
_TRY_SECONDS: Final = 1.0
_CHECKS: Final = limits.PAGES_AT_ONCE  # of the database, at a time: as many probes are answered at once
_threads: Final = ThreadPoolExecutor(_CHECKS, "airelays-ready")
_REDIS_KEY: Final = "airelays:ready"
_MIGRATED_SECONDS: Final = 60.0  # for which they are believed to be there
_trying = threading.Lock()
_tried_at, _written = float("-inf"), True
_trying_since = 0.0
_migrated_until = float("-inf")
_running: Final[set[asyncio.Future[str]]] = set()  # checks of the database that have not come back


async def answer(scope: AsgiScope, receive: Receive, send: Send) -> None:
    """Answer GET or HEAD of a probe without the middleware of pages, which takes four times as long as the answer.

    That is asked for whatever host: load balancers name the address of the machine.
    """
    request = HttpRequest()
    request.method, request.path = scope["method"], scope["path"]
    response = await (healthz if scope["path"] == "/healthz" else readyz)(request)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(response.content)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else response.content})


async def healthz(request: HttpRequest) -> JsonResponse:
    """Liveness: the process responds. Checks nothing else."""
    return JsonResponse({"ok": True, "name": "AIRelays Portal", "version": settings.VERSION})


async def readyz(request: HttpRequest) -> JsonResponse:
    """Readiness: the database is migrated and takes writes, requests can be recorded, Redis takes writes if configured,
    the portal is not stopping.

    Answers within READY_SECONDS, whatever hangs. `change_seen` is the id of the newest configuration change that this
    worker has applied.
    """
    problems = [fault for fault in await asyncio.gather(_fault_of_database(), _fault_of_redis()) if fault]
    if not problems and (fault := _fault_of_records()):
        problems.append(fault)
    running = current()
    if running is not None and running.stopping:
        problems.append("the portal is stopping")
    seen = running.position if running is not None else None
    return JsonResponse(
        {"ready": not problems, "problems": problems, "change_seen": seen}, status=503 if problems else 200
    )


async def _fault_of_database() -> str:
    """What is wrong with the database, empty when nothing is.

    A check that is not back in time goes on in its thread. As long as many do, no more are begun.
    """
    late = f"the database does not answer within {limits.READY_SECONDS} seconds: it hangs, or is locked"
    if len(_running) >= _CHECKS:
        return late
    # Not in the thread of the request, for which the middleware would wait, too.
    check = asyncio.get_running_loop().run_in_executor(_threads, _checked_once)
    _running.add(check)
    check.add_done_callback(_running.discard)
    done, _ = await asyncio.wait((check,), timeout=limits.READY_SECONDS)
    if done:
        return check.result()
    logger.error("not ready: %s", late)
    return late


def _checked_once() -> str:
    try:
        return _checked()
    finally:
        connection.close()


def _checked() -> str:
    global _migrated_until
    try:
        with statement_timeout(limits.READY_SECONDS):
            # To look at all migrations takes longer than anything else here, and nobody takes them back.
            if time.monotonic() >= _migrated_until:
                if migrations_missing():
                    return "migrations are outstanding: run `airelays manage migrate`"
                _migrated_until = time.monotonic() + _MIGRATED_SECONDS
            if not _can_write():
                return "the database takes no writes: its disk is full, it is read-only, or it is locked"
    except (DatabaseError, InterfaceError):
        return "the database does not answer"
    return ""


def _can_write() -> bool:
    """Whether the database takes writes, tried at most once a second: anybody may ask, and each try is a commit.

    Requests are charged for before they are answered, so a database that can only be read answers none.
    """
    global _tried_at, _trying_since, _written
    if not _trying.acquire(blocking=False):
        return _written and time.monotonic() - _trying_since < _TRY_SECONDS
    _trying_since = time.monotonic()
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


def _fault_of_records() -> str:
    """What keeps this worker from recording requests, which it refuses then; empty when nothing does.

    The database may answer all the same: a migration waits for a lock on the table of the records.
    """
    try:
        writer.admit()
    except RelayUnavailable:
        return "requests cannot be recorded, and are refused: the database is slow, or a table is locked"
    return ""


async def _fault_of_redis() -> str:
    """What is wrong with Redis, empty when nothing is."""
    if not settings.CONFIG.redis_url:
        return ""
    from redis import RedisError  # imported only where Redis is configured
    from redis.asyncio import Redis

    try:
        client: Any
        async with (
            asyncio.timeout(limits.READY_SECONDS),
            Redis.from_url(settings.CONFIG.redis_url, **redis.options()) as client,
        ):
            await client.set(_REDIS_KEY, 1, ex=60)  # limits and sign-ins are counted, so reading is not enough
    except (RedisError, OSError) as error:
        logger.error("not ready: Redis: %s", str(error) or "it does not answer")
        return f"Redis {redis.fault_of(error)}"
    return ""
