"""Connections to upstreams: kept, replaced, sent through a proxy."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, hello

pytestmark = pytest.mark.shared


@pytest.mark.parametrize("stream", [False, True])
def test_kept_connection_that_the_upstream_closes_in_that_moment_is_replaced(
    server: Server, live: Portal, stream: bool
) -> None:
    seen: set[object] = set()

    async def script(call: Call) -> None:
        if call.writer in seen:
            call.cut()
            return
        seen.add(call.writer)
        await hello(call)

    channel = live.channel()
    model, token = live.model(script, channels=[channel]), live.token()
    for _ in range(6):
        response = server.post(token, ask(model, stream=stream))
        assert response.status_code == 200 and response.headers["x-relay-attempts"] == "1"


def test_all_kept_connections_that_close_in_that_moment_are_replaced(server: Server, live: Portal) -> None:
    """As when an upstream restarts: none of the others is any better."""
    kept: set[object] = set()
    come: list[asyncio.Event] = []

    async def script(call: Call) -> None:
        if call.writer in kept:
            call.cut()
            return
        kept.add(call.writer)
        come.append(mine := asyncio.Event())
        if len(come) % 8 == 0:  # all of a round are here, each on a connection of its own
            for event in come:
                event.set()
        await mine.wait()
        await hello(call)

    model, token = live.model(script), live.token()
    server.catch_up()
    for _ in range(2):
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: server.post(token, ask(model)), range(8)))
        assert [(response.status_code, response.headers["x-relay-attempts"]) for response in found] == [(200, "1")] * 8


def test_channel_with_a_proxy_goes_through_it(server: Server, live: Portal) -> None:
    """The scripted upstream plays the proxy: it is asked for the whole URL, whose host nobody resolves here."""
    channel = live.channel("http://api.vendor.example.com/v1", proxy_url=f"http://127.0.0.1:{live.upstream.port}")
    model = live.model(channels=[channel])
    assert server.post(live.token(), ask(model)).status_code == 200
    call = live.upstream.last(model)
    assert (
        call.path == "http://api.vendor.example.com/v1/chat/completions"
        and call.headers["host"] == "api.vendor.example.com"
    )
