"""The start of a worker while its database is away."""

from __future__ import annotations

import asyncio
import threading

import pytest
from django.db import OperationalError

from relay.errors import RelayUnavailable
from relay.gateway.runtime import Runtime
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
