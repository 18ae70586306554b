"""The start of a worker while its database is away."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from django.db import OperationalError

from portal.asgi import application
from relay.errors import RelayUnavailable
from relay.gateway import runtime
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.change_feed import FeedPoller
from tests.support.asserts import until


async def test_requests_that_come_meanwhile_fail_with_the_same_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other they would each wait for the time limit of the database."""
    run, go, attempts = Runtime(), threading.Event(), []

    def start() -> None:
        attempts.append(1)
        go.wait()
        raise OperationalError("the server did not answer within 10 seconds")

    monkeypatch.setattr(run._poller, "start", start)
    waiting = [asyncio.ensure_future(run.start()) for _ in range(20)]
    left = asyncio.ensure_future(run.start())
    await asyncio.to_thread(until, lambda: attempts)
    left.cancel()  # one client leaves: the others go on waiting
    go.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert len(attempts) == 1 and all(isinstance(one, RelayUnavailable) for one in found)
    with pytest.raises(RelayUnavailable):
        await run.start()
    assert len(attempts) == 2, "the next request tries again"


async def test_a_worker_starts_without_its_database_and_serves_when_that_is_back(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that did not start would end all: the supervisor stops the portal when a new worker cannot start."""
    monkeypatch.setattr(runtime, "_runtime", None)
    monkeypatch.setattr(snapshot_cache, "_snapshot", None)
    monkeypatch.setattr(runtime, "_START_PAUSE", 0.01)
    monkeypatch.setattr(Runtime, "background_tasks", ())
    there = threading.Event()

    def start(self: FeedPoller) -> None:
        if not there.is_set():
            raise OperationalError("connection refused")

    monkeypatch.setattr(FeedPoller, "start", start)
    said: asyncio.Queue[Any] = asyncio.Queue()
    asked: asyncio.Queue[Any] = asyncio.Queue()
    await asked.put({"type": "lifespan.startup"})
    server = asyncio.ensure_future(application({"type": "lifespan"}, asked.get, said.put))
    assert await said.get() == {"type": "lifespan.startup.complete"}
    assert runtime.current() is None
    for scope, refused in (
        ({"type": "http", "method": "GET"}, "http.response.start"),
        ({"type": "websocket", "extensions": {"websocket.http.response": {}}}, "websocket.http.response.start"),
    ):
        answer: asyncio.Queue[Any] = asyncio.Queue()
        whole = {"path": "/v1/realtime", "headers": [], "query_string": b"", "client": ("127.0.0.1", 1), **scope}
        waiting: asyncio.Queue[Any] = asyncio.Queue()
        await waiting.put({"type": f"{scope['type']}.connect"} if scope["type"] == "websocket" else {})
        await application(whole, waiting.get, answer.put)
        head = await answer.get()
        assert (head["type"], head["status"]) == (refused, 503), head
    there.set()
    await asyncio.to_thread(until, runtime.current)  # nobody asks: it finds out by itself
    await asked.put({"type": "lifespan.shutdown"})
    await server
    assert await said.get() == {"type": "lifespan.shutdown.complete"}
