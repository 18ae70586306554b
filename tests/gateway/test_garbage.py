"""Nothing of a request outlives it.

The collector runs rarely here (`portal.asgi`), so what only it could free would pile up under load.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.support.load.in_process import World
from tests.support.portal import Portal
from tests.support.upstream import Call, Upstream, hello


async def limited(call: Call) -> None:
    await call.error(429, "slow down", "rate_limit_exceeded", {"retry-after": "0.2"})


async def slow(call: Call) -> None:
    await asyncio.sleep(0.3)
    await hello(call)


@pytest.fixture(scope="module")
def world(servers_database: Callable[[], AbstractContextManager[None]], upstream: Upstream) -> Iterator[World]:
    with servers_database():
        live = Portal(upstream)
        found = World(live)
        for name, script in (("limited", limited), ("slow", slow)):
            found.models[name] = live.model(script)
        yield found
        found.close()


OF_A_REQUEST = {
    "Attempt",
    "ChatStream",
    "Exchange",
    "Failure",
    "Grant",
    "Pump",
    "Record",
    "RequestCharge",
    "UpstreamAnswer",
}


def objects() -> Counter[str]:
    """How many objects of the relay's classes there are, by class."""
    found = gc.get_objects()
    return Counter(type(one).__name__ for one in found if str(type(one).__module__).startswith("relay."))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["hello", "dead", "cut", "endless", "limited", "slow", "unknown"])
def test_no_request_is_left_for_the_collector(world: World, model: str, stream: bool) -> None:
    world.models.setdefault("unknown", "no-such-model")
    world.request(2, model, stream, None, leave=model == "endless")
    gc.collect()
    before = objects()  # other tests of this process may hold some of their own
    gc.disable()
    try:
        for _ in range(5):
            world.request(2, model, stream, None, leave=model == "endless")
        world.settle()
        world.loop.run_until_complete(asyncio.sleep(0.1))
        kept = objects() - before
    finally:
        gc.enable()
    assert not {name: count for name, count in kept.items() if name in OF_A_REQUEST}
