"""What writing speech down costs: by the model that was in force, for the seconds that went in, whoever does it."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest

from relay.protocols.realtime.conversation import Conversation, Delta
from relay.protocols.realtime.speech import Speech
from tests.support.money import settled
from tests.support.peers.realtime import Call, closed, event_of
from tests.support.peers.spoken import Realtime

pytestmark = pytest.mark.shared

SECOND = 10_000_000  # nano-USD
WRITTEN = "conversation.item.input_audio_transcription.completed"
PCM = {"type": "audio/pcm", "rate": 24_000}
PCMU = {"type": "audio/pcmu"}


def merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            merge(into[name], value)
        else:
            into[name] = value


class Writer:
    """An upstream that keeps a session, and writes down what was committed when it is asked to."""

    def __init__(self, at: str = "input_audio_buffer.commit", usage: Any = None, refuses: str = "") -> None:
        """`at`: the type of the event by which it writes. `refuses`: the model of updates that it refuses."""
        self.at, self.usage, self.refuses = at, usage, refuses

    async def __call__(self, call: Call) -> None:
        session: dict[str, Any] = {"type": "realtime", "audio": {"input": {"transcription": None}}}
        await call.say("session.created", session=session)
        while True:
            event = await call.receive()
            if event["type"] == "session.update" and self.refuses and self.refuses in json.dumps(event):
                await call.say(
                    "error", error={"type": "invalid_request_error", "code": "invalid_value", "message": "No."}
                )
            elif event["type"] == "session.update":
                merge(session, event["session"])
                await call.say("session.updated", session=session)
            elif event["type"] == "input_audio_buffer.commit":
                await call.say("input_audio_buffer.committed", item_id="item_1")
            if event["type"] == self.at:
                report = {} if self.usage is None else {"usage": self.usage}
                await call.say(WRITTEN, item_id="item_1", content_index=0, transcript="hello", **report)


def update(transcription: Any = ..., into: Any = None, out: Any = None) -> str:
    audio: dict[str, Any] = {"input": {"turn_detection": None}, "output": {}}
    if transcription is not ...:
        audio["input"]["transcription"] = {"model": transcription} if isinstance(transcription, str) else transcription
    if into:
        audio["input"]["format"] = into
    if out:
        audio["output"]["format"] = out
    return json.dumps({"type": "session.update", "session": {"type": "realtime", "audio": audio}})


def append(size: int) -> str:
    return json.dumps({"type": "input_audio_buffer.append", "audio": base64.b64encode(bytes(size)).decode()})


COMMIT, CLEAR = '{"type":"input_audio_buffer.commit"}', '{"type":"input_audio_buffer.clear"}'


@pytest.mark.parametrize("usage", [None, {"type": "duration", "seconds": 10}])
def test_a_commit_is_billed_by_what_was_to_write_it_down_then(spoken: Realtime, usage: Any) -> None:
    model, token = spoken.model(Writer(at="input_audio_buffer.clear", usage=usage)), spoken.live.token()
    dear, cheap = spoken.transcriber(model, per_second="0.01"), spoken.transcriber(model, per_second="0.0001")

    async def run() -> None:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            await socket.send(update(dear))
            await event_of(socket, "session.updated")
            for event in (append(480_000), COMMIT, update(cheap), CLEAR):
                await socket.send(event)
            await event_of(socket, WRITTEN)

    asyncio.run(run())
    (row,) = spoken.records(dear)
    assert (row.cost, row.milliseconds) == (10 * SECOND, 10_000)


def test_an_update_that_is_refused_changes_no_price(spoken: Realtime) -> None:
    writer = Writer()
    model, token = spoken.model(writer), spoken.live.token()
    dear, cheap = spoken.transcriber(model, per_second="0.01"), spoken.transcriber(model, per_second="0.0001")
    writer.refuses = cheap

    async def run() -> None:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            for event in (update(dear), update(cheap), append(480_000), COMMIT):
                await socket.send(event)
            await event_of(socket, WRITTEN)

    asyncio.run(run())
    assert [row.cost for row in spoken.records(dear)] == [10 * SECOND]


@pytest.mark.parametrize("named", [True, False])
def test_a_transcript_without_usage_costs_what_went_in(spoken: Realtime, named: bool) -> None:
    """Although nothing was to be written down any more when it came, or as far as the upstream had told."""
    model, token = spoken.model(Writer(at="input_audio_buffer.clear")), spoken.live.token()
    dear = spoken.transcriber(model, per_second="0.01")

    async def run() -> None:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            events = (update(dear), append(480_000), COMMIT) if named else (append(480_000), COMMIT, update(dear))
            for event in events:
                await socket.send(event)
            await event_of(socket, "input_audio_buffer.committed")
            await socket.send(update(None))
            await event_of(socket, "session.updated")
            await socket.send(CLEAR)
            await event_of(socket, WRITTEN)

    asyncio.run(run())
    assert [row.cost for row in spoken.records(dear)] == [10 * SECOND]


@pytest.mark.parametrize(
    ("into", "out", "size"),
    [
        (PCM, PCMU, 480_000),
        (PCMU, PCM, 80_000),
        (PCMU, PCMU, 80_000),
        ({"type": "audio/pcm", "rate": 16_000}, PCM, 320_000),
        ({"type": "audio/pcm", "rate": 10**9}, PCM, 480_000),
    ],
)
def test_audio_is_measured_in_its_own_format(spoken: Realtime, into: Any, out: Any, size: int) -> None:
    model, token = spoken.model(Writer()), spoken.live.token()
    dear = spoken.transcriber(model, per_second="0.01")

    async def run() -> None:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            for event in (update(dear, into, out), append(size), COMMIT):
                await socket.send(event)
            await event_of(socket, WRITTEN)

    asyncio.run(run())
    assert [row.milliseconds for row in spoken.records(dear)] == [10_000]


@pytest.mark.parametrize(
    ("out", "size"), [(PCM, 48_000), (PCMU, 8_000), ({"type": "audio/pcm", "rate": 16_000}, 32_000)]
)
@pytest.mark.parametrize("own", [False, True])
def test_speech_that_an_upstream_cuts_is_measured_in_its_own_format(
    spoken: Realtime, out: Any, size: int, own: bool
) -> None:
    """`own`: the response has a format of its own."""
    format_of_session = PCMU if own and out is not PCMU else PCM if own else out

    async def script(call: Call) -> None:
        audio = {"input": {"format": PCMU}, "output": {"format": format_of_session}}
        await call.say("session.created", session={"type": "realtime", "audio": audio})
        await call.until("response.create")
        await call.say(
            "response.created", response={"id": "r", **({"audio": {"output": {"format": out}}} if own else {})}
        )
        for _ in range(10):
            sound = base64.b64encode(bytes(size)).decode()
            await call.say("response.output_audio.delta", response_id="r", delta=sound)
        call.cut()

    model, token = spoken.model(script), spoken.live.token()

    async def run() -> None:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            await socket.send('{"type":"response.create"}')
            await closed(socket)

    asyncio.run(run())
    assert 199 <= spoken.records(model)[0].audio_output_tokens <= 201


def test_words_about_formats_are_no_formats() -> None:
    conversation = Conversation()
    told = {"tools": [{"parameters": {"enum": ["audio/pcmu", "g711_ulaw"]}}], "audio": {"output": {"format": PCMU}}}
    conversation.configured(json.dumps({"type": "session.updated", "session": told}))
    assert conversation.sent_audio(48_000) == 1.0
    assert conversation.delta_units(Delta("response.output_audio.delta", "r", "A" * 10_667))[0] == pytest.approx(
        20, 0.01
    )


def test_a_format_that_is_only_asked_for_makes_no_audio_shorter() -> None:
    conversation = Conversation()
    longer = {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 48_000}}}}
    conversation.sent({"type": "session.update", "session": longer})
    assert conversation.sent_audio(48_000) == 1.0
    conversation.sent({"type": "session.update", "session": {"input_audio_format": "g711_ulaw"}})
    assert conversation.sent_audio(48_000) == 6.0, "as it is, if the upstream takes it"
    conversation.configured(json.dumps({"type": "session.updated", "session": longer}))
    assert conversation.sent_audio(96_000) == 1.0


def test_what_was_never_told_of_is_all_that_has_been_said() -> None:
    speech = Speech()
    speech.appended(5.0)
    first, again = speech.finished("item"), speech.finished("item")
    assert first is not None and again is not None and (first.seconds, again.seconds) == (5.0, 0.0)
    for number in range(1000):
        speech.appended(1.0)
        speech.heard(json.dumps({"type": "input_audio_buffer.committed", "item_id": f"item_{number}"}))
    assert len(speech._items) <= 64 and (speech.seconds, speech.commits) == (0.0, 0)


@pytest.mark.parametrize(("told", "least", "most"), [(True, 3000, 3000), (False, 3000, 63_000)])
def test_the_silence_before_a_turn_is_not_written_down(spoken: Realtime, told: bool, least: int, most: int) -> None:
    """Where nothing tells when the turn began, a minute before it counts at most."""

    async def script(call: Call) -> None:
        session = {"type": "realtime", "audio": {"input": {"transcription": None, "format": PCMU}}}
        await call.say("session.created", session=session)
        merge(session, (await call.until("session.update"))["session"])
        session["audio"]["input"]["turn_detection"] = {"type": "server_vad"}  # type: ignore[index]
        await call.say("session.updated", session=session)
        await call.until("input_audio_buffer.append")
        offset = {"audio_start_ms": 120_000} if told else {}
        await call.say("input_audio_buffer.speech_started", item_id="i", **offset)
        await call.until("input_audio_buffer.append")
        offset = {"audio_end_ms": 123_000} if told else {}
        await call.say("input_audio_buffer.speech_stopped", item_id="i", **offset)
        await call.say("input_audio_buffer.committed", item_id="i")
        await call.say(WRITTEN, item_id="i", content_index=0, transcript="hello")

    model, token = spoken.model(script), spoken.live.token()
    dear = spoken.transcriber(model, per_second="0.01")
    asked = {"type": "session.update", "session": {"audio": {"input": {"transcription": {"model": dear}}}}}

    async def run() -> None:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            await socket.send(json.dumps(asked))
            await event_of(socket, "session.updated")
            await socket.send(append(8_000 * 120))
            await event_of(socket, "input_audio_buffer.speech_started")
            await socket.send(append(8_000 * 3))
            await event_of(socket, WRITTEN)

    asyncio.run(run())
    (row,) = spoken.records(dear)
    assert least <= row.milliseconds <= most and row.cost == row.milliseconds * SECOND // 1000


# -- another protocol: vLLM's ------------------------------------------------------------------------------------------

FINAL = '{"type":"input_audio_buffer.commit","final":true}'


class Vllm:
    """What vLLM's server does: it writes down what comes from a commit until one that is final."""

    def __init__(self, usage: Any = None) -> None:
        self.usage = usage

    async def __call__(self, call: Call) -> None:
        await call.say("session.created", id="sess-1", created=1)
        running = False
        while True:
            event = await call.receive()
            if event["type"] == "session.update" and not event.get("model"):
                await call.say("error", error="Missing required field: model", code="invalid_event")
            elif event["type"] == "input_audio_buffer.commit" and event.get("final"):
                running = False
                await call.say("transcription.done", text="hello world", usage=self.usage)
            elif event["type"] == "input_audio_buffer.commit":
                running = True
            elif event["type"] == "input_audio_buffer.append" and running:
                await call.say("transcription.delta", delta="hello ")


USED = {"prompt_tokens": 500, "completion_tokens": 200, "total_tokens": 700}
TOKENS = {"input": 4, "output": 16}


@pytest.mark.parametrize(
    ("price", "usage", "cost"),
    [
        (TOKENS, USED, 500 * 4000 + 200 * 16000),
        ({"per_second": "0.01"}, USED, 10 * SECOND),
        ({"per_second": "0.01"}, None, 10 * SECOND),
        (TOKENS, None, 100 * 4000 + 3 * 16000),
    ],
)
@pytest.mark.parametrize("leaves", [False, True])
def test_a_transcription_of_vllm_is_recorded_and_paid(
    spoken: Realtime, price: dict[str, Any], usage: Any, cost: int, leaves: bool
) -> None:
    """`leaves`: the client does, and the portal asks for the end, with which the usage is told."""
    model = spoken.model(Vllm(usage), price=price)
    user = spoken.live.user(balance=10**12)
    token = spoken.live.token(user)

    async def run() -> None:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            await socket.send(json.dumps({"type": "session.update", "model": model}))
            for event in (COMMIT, append(160_000), append(160_000)):
                await socket.send(event)
            for _ in range(2):
                await event_of(socket, "transcription.delta")
            if not leaves:
                await socket.send(FINAL)
                assert (await event_of(socket, "transcription.done"))["text"] == "hello world"

    asyncio.run(run())
    rows = [row for row in spoken.records(model, 2) if row.cost]
    assert [(row.cost, row.usage_source) for row in rows] == [
        (cost, "reported" if usage and price == TOKENS else "estimated")
    ]
    assert settled(user).used == cost
    (call,) = spoken.calls(model)
    assert call.got[0]["model"] == call.model


def test_an_error_of_vllm_comes_as_it_is(spoken: Realtime) -> None:
    model, token = spoken.model(Vllm()), spoken.live.token()

    async def run() -> dict[str, Any]:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            await socket.send(update())
            return await event_of(socket, "error")

    told = asyncio.run(run())
    assert (told["error"], told["code"]) == ("Missing required field: model", "invalid_event")


def test_what_vllm_wrote_before_its_connection_broke_is_paid(spoken: Realtime) -> None:
    async def script(call: Call) -> None:
        await call.say("session.created", id="sess-1", created=1)
        await call.until("input_audio_buffer.append")
        await call.say("transcription.delta", delta="hello ")
        call.cut()

    model, token = spoken.model(script, price={"per_second": "0.01"}), spoken.live.token()

    async def run() -> None:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            for event in (COMMIT, append(320_000)):
                await socket.send(event)
            await closed(socket)

    asyncio.run(run())
    assert sorted(row.cost for row in spoken.records(model, 2)) == [0, 10 * SECOND]


# -- sessions that only transcribe -------------------------------------------------------------------------------------


@pytest.mark.parametrize("transcription", [{"language": "en"}, ...])
def test_the_model_in_the_address_of_a_transcription_suffices(spoken: Realtime, transcription: Any) -> None:
    model, token = spoken.model(Writer(), price={"per_second": "0.01"}), spoken.live.token()

    async def run() -> None:
        async with spoken.connect(model, token, f"intent=transcription&model={model}") as socket:
            await event_of(socket, "session.created")
            for event in (update(transcription), append(480_000), COMMIT):
                await socket.send(event)
            await event_of(socket, WRITTEN)

    asyncio.run(run())
    (call,) = spoken.calls(model)
    sent = call.got[0]["session"]["audio"]["input"].get("transcription")
    assert sent == (None if transcription is ... else {"language": "en", "model": call.model})
    rows = [row for row in spoken.records(model, 2) if row.cost]
    assert [(row.cost, row.milliseconds) for row in rows] == [(10 * SECOND, 10_000)]


@pytest.mark.parametrize(
    ("host", "transcribes", "named"),
    [("api.openai.com", True, True), ("house.openai.azure.com", True, True), ("speech.example.com", True, False),
     ("api.openai.com", False, False)],
)  # fmt: skip
def test_where_the_upstreams_address_names_no_model_the_portal_does(host: str, transcribes: bool, named: bool) -> None:
    from types import SimpleNamespace

    from relay.endpoints.realtime.connection import _session_of_address

    channel: Any = SimpleNamespace(urls={"realtime": httpx.URL(f"https://{host}/v1/realtime")})
    exchange: Any = SimpleNamespace(transcribes=transcribes)
    session = {"type": "transcription", "audio": {"input": {"transcription": {"model": "heard"}}}}
    assert _session_of_address(exchange, channel, "heard") == (session if named else {})
