"""Connections to upstreams: kept, replaced, sent through a proxy."""

from __future__ import annotations

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from portal.lib.redaction.redact import clean_upstream_message, redact
from relay.transport.pool import Upstreams
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, completion, hello

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


@pytest.mark.parametrize(("setting", "status", "sent"), [("never", 502, 2), ("broken", 200, 3), ("always", 200, 3)])
def test_a_request_is_sent_twice_only_where_the_channel_allows_it_and_the_record_says_so(
    server: Server, live: Portal, setting: str, status: int, sent: int
) -> None:
    """POST is not idempotent (RFC 9110, 9.2.2): the upstream may have read what it did not answer."""
    calls: list[Call] = []

    async def script(call: Call) -> None:
        calls.append(call)
        if len(calls) == 2:  # on a kept connection, since the first call has left one
            call.cut()
        else:
            await hello(call)

    model, token = live.model(script, channels=[live.channel(retry_unanswered=setting)]), live.token()
    server.post(token, ask(model))
    response = server.post(token, ask(model))
    assert (response.status_code, live.upstream.count(model)) == (status, sent)
    (attempt,) = live.record(response).attempt_log
    assert ("sent twice" in attempt.get("detail", "")) == (sent == 3)


def test_an_answer_with_hundreds_of_header_fields_is_read(server: Server, live: Portal) -> None:
    """As of an upstream behind gateways that each add theirs; aiohttp reads 128 unless it is told otherwise."""
    fields = {f"x-gateway-{number}": "x" for number in range(600)}

    async def script(call: Call) -> None:
        await call.reply(200, completion(), fields)

    assert server.post(live.token(), ask(live.model(script))).status_code == 200


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


async def test_what_opens_a_proxy_is_found_in_what_is_said_of_it() -> None:
    """No address with a password can be entered. One that was stored otherwise is known from the start."""
    upstreams = Upstreams(lambda: (), 1)
    upstreams.transport("http://relay:s3cret-Pa55word@squid.inside.example.museum:3128")
    said = "407 for relay with s3cret-Pa55word (Basic cmVsYXk6czNjcmV0LVBhNTV3b3Jk) at squid.inside.example.museum:3128"
    assert (
        redact(said) == "407 for relay with [redacted key] (Basic [redacted key]) at squid.inside.example.museum:3128"
    )
    assert clean_upstream_message(said) == "407 for relay with [redacted key] (Basic [redacted key]) at [host]"
    await upstreams.close()


@pytest.mark.parametrize("stream", [False, True])
def test_an_upstream_is_told_nothing_of_the_client_or_of_the_libraries(
    server: Server, live: Portal, stream: bool
) -> None:
    model = live.model(hello)
    headers = {
        "user-agent": "my-app/1.0",
        "accept-encoding": "br",
        "cookie": "session=1",
        "x-forwarded-for": "192.0.2.7",
    }
    assert server.post(live.token(), ask(model, stream=stream), headers=headers).status_code == 200
    sent = live.upstream.last(model).headers
    assert sent["user-agent"] == "airelays-portal" and sent["accept-encoding"] == "identity"
    assert sent.keys() == {
        "host", "accept", "accept-encoding", "authorization", "content-length", "content-type", "user-agent",
        "x-airelays-via",
    }  # fmt: skip
    assert re.fullmatch(r"[0-9a-f]+", sent["x-airelays-via"]), "an id that says nothing, against loops of relays"
