"""What realtime sessions cost, and when their money is at its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.support.asserts import until
from tests.support.money import books_balance, settled, wallet
from tests.support.peers.realtime import CREATED, Call, RealtimeUpstream, event_of, secrets, wait_until_closed
from tests.support.portal import Portal
from tests.support.server import Server

pytestmark = pytest.mark.shared

PRICE = {"input": 4, "audio_input": 32, "output": 16, "audio_output": 64}
ASK = '{"type":"response.create"}'


@pytest.fixture(scope="module")
def upstream() -> Iterator[RealtimeUpstream]:
    running = RealtimeUpstream()
    yield running
    running.stop()


class Sessions:
    """Sessions of one model, whose upstream does as a script says."""

    def __init__(self, live: Portal, server: Server, upstream: RealtimeUpstream, script: Any) -> None:
        self.server, self.name = server, live.name("spoken")
        upstream.scripts[self.name] = script
        self.model = live.model(None, base_url=upstream.base_url, upstream_name=self.name, price=PRICE)

    def connect(self, token: str) -> Any:
        address = f"ws://127.0.0.1:{self.server.port}/v1/realtime?model={self.model}"
        return connect(address, additional_headers=secrets(token))

    def records(self, count: int) -> list[Any]:
        from relay.models import UsageRecord

        rows = UsageRecord.objects.filter(model=self.model).order_by("pk")
        found: list[Any] = until(lambda: len(found := list(rows.all())) >= count and found)
        return found


def done(name: str, text: int, audio: int) -> dict[str, Any]:
    usage = {
        "input_tokens": text,
        "output_tokens": audio,
        "total_tokens": text + audio,
        "input_token_details": {"text_tokens": text, "audio_tokens": 0, "cached_tokens": 0},
        "output_token_details": {"text_tokens": 0, "audio_tokens": audio},
    }
    return {"type": "response.done", "response": {"id": name, "status": "completed", "usage": usage}}


async def _next(socket: ClientConnection, kind: str, times: int = 1) -> None:
    for _ in range(times):
        await event_of(socket, kind)


def test_an_end_that_is_told_again_is_charged_once(live: Portal, server: Server, upstream: RealtimeUpstream) -> None:
    """Also out of order, and while another response is asked for."""

    async def script(call: Call) -> None:
        await call.send(CREATED)
        for name in ("a", "b"):
            await call.until("response.create")
            await call.send({"type": "response.created", "response": {"id": name}})
        for name in ("a", "b", "a"):
            await call.send(done(name, 100, 10))
        await call.until("response.create")
        for name in ("b", "a"):
            await call.send(done(name, 100, 10))
        await call.send({"type": "response.created", "response": {"id": "c"}})
        await call.send(done("c", 100, 10))
        await wait_until_closed(call)

    sessions, user = Sessions(live, server, upstream, script), live.user(balance=10**12)
    token = live.token(user)
    server.catch_up()

    async def run() -> None:
        async with sessions.connect(token) as socket:
            await _next(socket, "session.created")
            await socket.send(ASK)
            await socket.send(ASK)
            await _next(socket, "response.done", 3)
            await socket.send(ASK)
            await _next(socket, "response.done", 3)

    asyncio.run(run())
    costs = [row.cost for row in sessions.records(3) if row.cost]
    assert costs == [100 * 4_000 + 10 * 64_000] * 3 and settled(user).used == sum(costs)
    books_balance()


def spoken(name: str, seconds: float) -> dict[str, Any]:
    """A part of a response as long as that, in 16-bit samples at 24 kHz."""
    return {"type": "response.output_audio.delta", "response_id": name, "delta": "A" * round(seconds * 64_000)}


@pytest.mark.parametrize("piece", [0.2, 1.0])
def test_a_small_balance_pays_for_what_it_covers(
    live: Portal, server: Server, upstream: RealtimeUpstream, piece: float
) -> None:
    """The input that is assumed at least is text: it is not held at the price of audio."""

    async def script(call: Call) -> None:
        await call.send(CREATED)
        await call.until("response.create")
        await call.send({"type": "response.created", "response": {"id": "r"}})
        for _ in range(round(10 / piece)):
            await call.send(spoken("r", piece))
        await call.send(done("r", 100, 200))
        await wait_until_closed(call)

    sessions, user = Sessions(live, server, upstream, script), live.user(balance=60_000_000)
    token = live.token(user)
    server.catch_up()

    async def run() -> None:
        async with sessions.connect(token) as socket:
            await _next(socket, "session.created")
            await socket.send(ASK)
            await _next(socket, "response.done")

    asyncio.run(run())
    cost = 100 * 4_000 + 200 * 64_000
    assert [row.cost for row in sessions.records(1) if row.cost] == [cost] and settled(user).used == cost
    books_balance()


def test_what_does_not_cover_a_short_answer_is_refused_before_anything_is_begun(
    live: Portal, server: Server, upstream: RealtimeUpstream
) -> None:
    async def script(call: Call) -> None:
        await call.send(CREATED)

    sessions, user = Sessions(live, server, upstream, script), live.user(balance=20_000_000)
    token = live.token(user)
    server.catch_up()

    async def run() -> int:
        with pytest.raises(InvalidStatus) as refused:
            await sessions.connect(token)
        return refused.value.response.status_code

    assert asyncio.run(run()) == 429 and not upstream.count(sessions.name)
    assert settled(user).balance == 20_000_000


def test_what_ends_for_want_of_money_is_told_so_and_leaves_no_more_than_its_last_part(
    live: Portal, server: Server, upstream: RealtimeUpstream
) -> None:
    async def script(call: Call) -> None:
        await call.send(CREATED)
        await call.until("response.create")
        await call.send({"type": "response.created", "response": {"id": "r"}})
        for _ in range(600):
            await call.send(spoken("r", 0.2))
        await wait_until_closed(call)

    sessions, user = Sessions(live, server, upstream, script), live.user(balance=60_000_000)
    token = live.token(user)
    server.catch_up()

    async def run() -> dict[str, Any]:
        async with sessions.connect(token) as socket:
            await _next(socket, "session.created")
            await socket.send(ASK)
            error: dict[str, Any] = (await event_of(socket, "error"))["error"]
            return error

    error = asyncio.run(run())
    assert error["code"] == "insufficient_quota" and "does not cover any more" in error["message"]
    (row,) = [row for row in sessions.records(1) if row.cost]
    # What was held for 2,000 tokens of input is charged as far as there probably were so many.
    assert row.audio_output_tokens > 750 and settled(user).balance <= 4 * 64_000 + 2000 * 4_000
    books_balance()


def test_input_is_held_by_its_class(live: Portal, server: Server, upstream: RealtimeUpstream) -> None:
    """Thirty seconds of speech have 300 tokens at the price of audio, among those that are assumed at least."""

    async def script(call: Call) -> None:
        await call.send(CREATED)
        await call.until("response.create")
        await call.send({"type": "response.created", "response": {"id": "r"}})
        await call.say("held")
        await wait_until_closed(call)

    sessions, user = Sessions(live, server, upstream, script), live.user(balance=400_000_000)
    token = live.token(user)
    server.catch_up()

    async def run() -> tuple[int, int]:
        async with sessions.connect(token) as socket:
            await _next(socket, "session.created")
            before = (await asyncio.to_thread(wallet, user)).reserved
            for _ in range(30):
                await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 64_000}))
            await socket.send(ASK)
            await _next(socket, "held")
            return before, (await asyncio.to_thread(wallet, user)).reserved

    before, after = asyncio.run(run())
    assert before == 2000 * 4_000 + 4096 * 64_000 and after - before == 300 * (32_000 - 4_000)


# -- an open microphone ------------------------------------------------------------------------------------------------


def turn(start: int | None, end: int | None) -> list[dict[str, Any]]:
    """What an upstream tells of a turn that it has heard. Milliseconds of all audio; None: it tells none."""
    first = {} if start is None else {"audio_start_ms": start}
    last = {} if end is None else {"audio_end_ms": end}
    return [
        {"type": "input_audio_buffer.speech_started", "item_id": "item_1", **first},
        {"type": "input_audio_buffer.speech_stopped", "item_id": "item_1", **last},
        {"type": "input_audio_buffer.committed", "item_id": "item_1"},
        {"type": "response.created", "response": {"id": "r", "status": "in_progress"}},
    ]


class Microphone:
    """An upstream that hears nothing in a minute of audio after the other, and a turn at the end."""

    def __init__(self, minutes: int, *events: dict[str, Any]) -> None:
        self.minutes, self.events = minutes, events

    async def __call__(self, call: Call) -> None:
        audio = {"input": {"format": {"type": "audio/pcmu"}, "turn_detection": {"type": "server_vad"}}}
        await call.send({"type": "session.created", "session": {"type": "realtime", "audio": audio}})
        for _ in range(self.minutes):
            await call.until("input_audio_buffer.append")
        for event in self.events:
            await call.send(event)
        await wait_until_closed(call)

    async def speak(self, socket: ClientConnection) -> None:
        await _next(socket, "session.created")
        minute = json.dumps({"type": "input_audio_buffer.append", "audio": "A" * (8_000 * 60 * 4 // 3)})
        for _ in range(self.minutes):
            await socket.send(minute)
        await _next(socket, "response.done")


def test_the_silence_of_an_open_microphone_is_not_held_for(
    live: Portal, server: Server, upstream: RealtimeUpstream
) -> None:
    """Twenty minutes would be 12,000 tokens of audio, more than the balance can pay."""
    talking = Microphone(20, *turn(1_190_000, 1_199_000), *[spoken("r", 1.0)] * 3, done("r", 300, 100))
    sessions, user = Sessions(live, server, upstream, talking), live.user(balance=300_000_000)
    token = live.token(user)
    server.catch_up()

    async def run() -> None:
        async with sessions.connect(token) as socket:
            await talking.speak(socket)

    asyncio.run(run())
    cost = 300 * 4_000 + 100 * 64_000
    assert [row.cost for row in sessions.records(1) if row.cost] == [cost] and settled(user).used == cost
    books_balance()


@pytest.mark.parametrize(("told", "tokens"), [((595_000, 598_000), 30), ((None, None), 600)])
def test_the_silence_of_an_open_microphone_is_not_charged(
    live: Portal, server: Server, upstream: RealtimeUpstream, told: tuple[int | None, int | None], tokens: int
) -> None:
    """Of a response whose usage is not reported. Where nothing tells how long a turn was, a minute counts at most."""
    end = {"type": "response.done", "response": {"id": "r", "status": "completed"}}
    talking = Microphone(10, *turn(*told), spoken("r", 1.0), end)
    sessions, user = Sessions(live, server, upstream, talking), live.user(balance=10**12)
    token = live.token(user)
    server.catch_up()

    async def run() -> None:
        async with sessions.connect(token) as socket:
            await talking.speak(socket)

    asyncio.run(run())
    (row,) = [row for row in sessions.records(1) if row.cost]
    assert row.usage_source == "estimated" and tokens <= row.input_tokens <= tokens + 100


# -- ends without ids --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begins", ["without an id", "not told", "with an id"])
def test_an_end_without_an_id_that_is_told_again_is_charged_once(
    live: Portal, server: Server, upstream: RealtimeUpstream, begins: str
) -> None:
    """Another response is charged as well."""
    last = done("", 100, 10)
    del last["response"]["id"]

    async def script(call: Call) -> None:
        await call.send(CREATED)
        for _ in range(2):
            await call.until("response.create")
            if begins != "not told":
                await call.send({"type": "response.created", "response": {"id": "r"} if begins == "with an id" else {}})
            await call.send(last)
            await call.send(last)
        await wait_until_closed(call)

    sessions, user = Sessions(live, server, upstream, script), live.user(balance=10**12)
    token = live.token(user)
    server.catch_up()

    async def run() -> None:
        async with sessions.connect(token) as socket:
            await _next(socket, "session.created")
            for _ in range(2):
                await socket.send(ASK)
                await _next(socket, "response.done", 2)

    asyncio.run(run())
    costs = [row.cost for row in sessions.records(2) if row.cost]
    assert costs == [100 * 4_000 + 10 * 64_000] * 2 and settled(user).used == sum(costs)


def test_an_end_whose_beginning_had_no_id_is_charged_once(
    live: Portal, server: Server, upstream: RealtimeUpstream
) -> None:
    async def script(call: Call) -> None:
        await call.send(CREATED)
        await call.until("response.create")
        await call.send({"type": "response.created", "response": {}})
        await call.send(done("r", 100, 10))

    sessions, user = Sessions(live, server, upstream, script), live.user(balance=10**12)
    token = live.token(user)
    server.catch_up()

    async def run() -> None:
        async with sessions.connect(token) as socket:
            await _next(socket, "session.created")
            await socket.send(ASK)
            await _next(socket, "response.done")

    asyncio.run(run())
    assert settled(user).used == 100 * 4_000 + 10 * 64_000
    assert [row.cost > 0 for row in sessions.records(1) if row.cost] == [True]
