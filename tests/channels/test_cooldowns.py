"""Channels that cool down: left out, asked by one probe, and what clients hear meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from relay.gateway.routing.circuit_breaker import RECENT_FAILURES
from tests.support.asserts import check, until
from tests.support.portal import Portal, ask, two
from tests.support.server import NO_CERTIFICATES, Server, free_port, serving
from tests.support.upstream import Call, Upstream, chunk, completion, failing, hello

pytestmark = pytest.mark.shared


def test_a_channel_that_breaks_its_streams_is_left_alone_too(live: Portal, server: Server, second: Upstream) -> None:
    async def cut(call: Call) -> None:
        await call.open_stream()
        await call.event(chunk("Hello"))
        call.cut()

    model, _, spare = two(live, second, cut)
    token = live.token()
    found = [server.post(token, ask(model, stream=True)) for _ in range(RECENT_FAILURES[0] + 1)]
    assert ["upstream_truncated" in response.text for response in found] == [True] * RECENT_FAILURES[0] + [False]
    assert found[-1].headers["x-relay-channel"] == str(spare.pk) and found[-1].headers["x-relay-attempts"] == "1"


def test_a_dead_address_is_left_alone_and_tried_again_by_one_probe(
    live: Portal, server: Server, second: Upstream
) -> None:
    dead = live.channel(f"http://127.0.0.1:{free_port()}/v1", priority=5)
    model = live.model(channels=[dead, live.channel(second.base_url)])
    token = live.token()
    began = time.monotonic()
    attempts = [int(server.post(token, ask(model)).headers["x-relay-attempts"]) for _ in range(12)]
    assert attempts[0] == 2 and sum(attempts) - len(attempts) <= 2 + (time.monotonic() - began), attempts


def test_three_channels_one_dead_one_flapping_one_well(live: Portal, server: Server, second: Upstream) -> None:
    """No client notices anything, and the dead channel is asked by hardly anybody."""
    chance = iter(range(10_000_000))

    async def flapping(call: Call) -> None:
        if next(chance) % 10 < 3:
            await call.error(500)
        else:
            await call.reply(200, completion())

    closed: list[float] = []

    async def listen() -> asyncio.Server:
        async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            closed.append(time.monotonic())
            writer.transport.abort()

        return await asyncio.start_server(refuse, "127.0.0.1", 0)

    loop = second._loop
    listener = asyncio.run_coroutine_threadsafe(listen(), loop).result(5)
    dead = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    flaky = Upstream()
    try:
        model = live.model(channels=[live.channel(dead), live.channel(flaky.base_url), live.channel(second.base_url)])
        flaky.script(model, flapping)
        token = live.token()
        server.catch_up()
        headers, began = {"authorization": f"Bearer {token}"}, time.monotonic()
        with (
            httpx.Client(
                base_url=server.url,
                headers=headers,
                timeout=30,
                trust_env=False,
                verify=NO_CERTIFICATES,
                limits=httpx.Limits(max_connections=50),
            ) as client,
            ThreadPoolExecutor(50) as pool,
        ):
            found = list(pool.map(lambda _: client.post("/v1/chat/completions", json=ask(model)), range(1500)))
        assert Counter(response.status_code for response in found) == {200: 1500}
        assert len(closed) <= 50 + 12 + (time.monotonic() - began), (
            "those that were under way when its circuit opened, and the probes"
        )
    finally:
        listener.close()
        flaky.stop()


def test_retry_after_is_the_earliest_return(live: Portal, server: Server) -> None:
    async def script(call: Call) -> None:
        await call.error(
            429,
            "x",
            "rate_limit_exceeded",
            {"retry-after": "400" if "first" in call.headers["authorization"] else "90"},
        )

    model = live.model(script, keys=("sk-first-key-0123456789abc", "sk-second-key-0123456789ab"))
    token = live.token()
    first = server.post(token, ask(model))
    check(first, 429, "rate_limit_error", "rate_limit_exceeded")
    assert first.headers["retry-after"] == "90"
    again = server.post(token, ask(model))
    check(again, 429, "rate_limit_error", "rate_limit_exceeded")
    assert 1 <= int(again.headers["retry-after"]) <= 90 and live.upstream.count(model) == 2
    assert live.record(again).end_reason == "upstream_error" and live.record(again).attempts == 0


def test_a_failing_channel_without_a_sibling_is_a_503_without_a_time_that_nobody_named(
    live: Portal, server: Server
) -> None:
    model = live.model(failing(500))
    token = live.token()
    assert [server.post(token, ask(model)).status_code for _ in range(RECENT_FAILURES[1])] == [502] * RECENT_FAILURES[1]
    refused = until(
        lambda: (found := server.post(token, ask(model))).status_code != 502 and found
    )  # a probe now and then
    check(refused, 503, "server_error", "no_available_channel")
    assert "retry-after" not in refused.headers


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, None), (403, None), (429, "rate_limit_exceeded"), (500, None), (503, None), (529, "overloaded_error")],
)
def test_the_only_channel_is_asked_again_when_it_named_no_time(
    live: Portal, server: Server, status: int, code: str | None
) -> None:
    """A guess of ours keeps nobody from the one upstream that there is."""
    calls = 0

    async def once(call: Call) -> None:
        nonlocal calls
        calls += 1
        await (call.error(status, "mock error", code) if calls == 1 else hello(call))

    model, token = live.model(once), live.token()
    assert server.post(token, ask(model)).status_code >= 400
    assert server.post(token, ask(model)).status_code == 200


def test_what_one_worker_learns_the_others_know(live: Portal, server: Server, second: Upstream, tmp_path: Path) -> None:
    from relay.models import Cooldown

    model, first, _spare = two(live, second, failing(429, "rate_limit_exceeded", {"retry-after": "60"}))
    token = live.token()
    with serving(tmp_path / "log") as other:
        assert server.post(token, ask(model)).headers["x-relay-attempts"] == "2"
        until(lambda: Cooldown.objects.filter(channel=first).exists())
        assert other.post(token, ask(model)).headers["x-relay-attempts"] == "1"
    with serving(tmp_path / "log") as restarted:
        assert restarted.post(token, ask(model)).headers["x-relay-attempts"] == "1", "a restart forgets nothing"
        row = Cooldown.objects.get(channel=first)
        from relay.channels import cooldowns

        cooldowns.end_cooldowns([row], None, None)
        assert restarted.post(token, ask(model)).headers["x-relay-attempts"] == "2"
