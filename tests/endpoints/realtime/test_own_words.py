"""What a user has written, and events repeat, is nobody's error: it comes back as it was, and teaches nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

from relay.endpoints.realtime.responses import RealtimeResponses
from relay.protocols.realtime import faults
from relay.protocols.realtime.events import with_limits
from tests.support.asserts import until
from tests.support.peers.realtime import CREATED, Call, event_of
from tests.support.peers.spoken import Realtime

pytestmark = pytest.mark.shared

DEAD = {"type": "invalid_request_error", "code": "invalid_api_key", "message": "Incorrect API key provided: sk-abc."}
PARAMETERS = {"type": "object", "properties": {"error": DEAD, "status_details": {"error": DEAD}}, "required": ["error"]}
TOOL = {"type": "function", "name": "report", "description": "Reports", "parameters": PARAMETERS}
MCP = {"id": "mcp_1", "type": "mcp_call", "server_label": "mine", "error": {**DEAD, "type": "http_error", "code": 401}}


async def echo(call: Call) -> None:
    """Repeats what the client has sent, as OpenAI's server does, also in the events of a response."""
    await call.send(CREATED)
    while True:
        event = await call.receive()
        if event["type"] == "session.update":
            await call.say("session.updated", session=event["session"])
        elif event["type"] == "conversation.item.create":
            await call.say("conversation.item.done", item=event["item"])
        elif event["type"] == "response.create":
            made = {"id": "r", "status": "in_progress", **event["response"]}
            await call.say("response.created", response=made)
            await call.say("response.output_item.done", response_id="r", item=MCP)
            await call.say("response.done", response={**made, "status": "completed", "output": [MCP], "usage": None})


def keys_of(model: str) -> list[Any]:
    from relay.models import ApiKey, ChannelModel

    return list(ApiKey.objects.filter(channel=ChannelModel.objects.get(model__name=model).channel))


def test_what_a_user_has_written_comes_back_as_it_was_and_no_key_is_blamed_for_it(spoken: Realtime) -> None:
    model, token = spoken.model(echo), spoken.live.token()
    metadata = {"error": "Incorrect API key provided: sk-abc.", "type": "error", "code": "invalid_api_key"}
    item = {"type": "function_call_output", "call_id": "c", "output": json.dumps({"error": DEAD}), "error": DEAD}

    async def run() -> list[dict[str, Any]]:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            await socket.send(json.dumps({"type": "session.update", "session": {"tools": [TOOL]}}))
            await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
            await socket.send(json.dumps({"type": "response.create", "response": {"metadata": metadata}}))
            kinds = ("session.updated", "conversation.item.done", "response.created", "response.output_item.done")
            return [await event_of(socket, kind) for kind in (*kinds, "response.done")]

    updated, kept, created, output, done = asyncio.run(run())
    assert updated["session"]["tools"] == [TOOL] and kept["item"] == item
    assert created["response"]["metadata"] == done["response"]["metadata"] == metadata
    assert output["item"] == done["response"]["output"][0] == MCP, "the error is of the user's own server"
    assert spoken.records(model)[0].end_reason == "completed"

    other = spoken.live.token()

    async def again() -> None:
        async with spoken.connect(model, other) as socket:
            await event_of(socket, "session.created")

    asyncio.run(again())
    assert [(key.enabled, key.auto_disabled) for key in keys_of(model)] == [(True, "")]


def test_the_session_of_a_client_secret_comes_back_as_it_was(spoken: Realtime) -> None:
    model, token = spoken.model(echo), spoken.live.token()
    session = {"type": "realtime", "model": model, "tools": [TOOL]}
    spoken.server.catch_up()
    made = spoken.server.post(token, {"session": session}, path="/v1/realtime/client_secrets").json()
    assert made["session"]["tools"] == [TOOL]

    async def run() -> dict[str, Any]:
        async with spoken.connect(model, made["value"]) as socket:
            return await event_of(socket, "session.updated")

    assert asyncio.run(run())["session"]["tools"] == [TOOL]
    assert [key.auto_disabled for key in keys_of(model)] == [""]


def test_an_error_in_its_own_place_still_proves_that_a_key_is_dead(spoken: Realtime) -> None:
    async def script(call: Call) -> None:
        await call.send(CREATED)
        await call.until("response.create")
        await call.say("response.created", response={"id": "r"})
        failed = {"id": "r", "status": "failed", "status_details": {"type": "failed", "error": DEAD}}
        await call.say("response.done", response={**failed, "metadata": {"error": "mine"}})

    model, token = spoken.model(script), spoken.live.token()

    async def run() -> dict[str, Any]:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            await socket.send('{"type":"response.create"}')
            return (await event_of(socket, "response.done"))["response"]  # type: ignore[no-any-return]

    response = asyncio.run(run())
    assert response["status_details"]["error"]["code"] == "upstream_credentials_exhausted"
    assert response["metadata"] == {"error": "mine"}
    assert until(lambda: keys_of(model)[0].auto_disabled)


@pytest.mark.parametrize(
    ("error", "about_audio"),
    [
        ({"code": "input_audio_buffer_commit_empty", "message": "Error committing."}, True),
        ({"code": None, "message": "Error committing input audio buffer: the buffer is too small."}, True),
        ({"code": "invalid_value", "message": "No.", "event_id": "input_audio_buffer"}, False),
        ({"code": "invalid_value", "message": "Invalid value: 'input_audio_buffer'.", "param": "response.x"}, False),
    ],
)
def test_what_an_upstream_refused_is_told_by_its_own_words(error: dict[str, Any], about_audio: bool) -> None:
    assert faults.is_about_audio({"type": "error", "error": error}) == about_audio


def test_a_text_as_an_error_stays_one() -> None:
    event: dict[str, object] = {"type": "error", "error": "broken at http://10.1.2.3", "code": "processing_error"}
    bodies: list[bytes] = []

    def told(body: bytes) -> dict[str, object]:
        bodies.append(body)
        return {"message": "broken"}

    faults.clean_errors(event, told)
    assert event == {"type": "error", "error": "broken", "code": "processing_error"}
    assert json.loads(bodies[0]) == {"error": "broken at http://10.1.2.3", "code": "processing_error"}


# -- limits of the portal's account ------------------------------------------------------------------------------------

THEIRS = [{"name": "requests", "limit": 5000, "remaining": 4999, "reset_seconds": 0.012}]


async def limiting(call: Call) -> None:
    await call.send(CREATED)
    while True:
        await call.until("response.create")
        await call.say("response.created", response={"id": "r"})
        await call.say("rate_limits.updated", event_id="e", rate_limits=THEIRS)
        await call.say("response.done", response={"id": "r", "status": "completed", "usage": None})


@pytest.mark.parametrize("limit", [None, 7])
def test_limits_of_the_portals_account_are_not_told(spoken: Realtime, limit: int | None) -> None:
    model = spoken.model(limiting, **({"max_rpm": limit} if limit else {}))
    token = spoken.live.token()

    async def run() -> list[dict[str, Any]]:
        got = []
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            for _ in range(2):
                await socket.send('{"type":"response.create"}')
                while (event := json.loads(await asyncio.wait_for(socket.recv(), 20)))["type"] != "response.done":
                    got += [event] if event["type"] == "rate_limits.updated" else []
        return got

    told = [
        [(one["name"], one["limit"], one["remaining"]) for one in event["rate_limits"]] for event in asyncio.run(run())
    ]
    assert told == ([[("requests", 7, 6)], [("requests", 7, 5)]] if limit else [])


@pytest.mark.parametrize("asks_first", [True, False])
def test_what_is_asked_for_takes_what_is_being_held_for_the_next(asks_first: bool) -> None:
    """Otherwise it would count twice against the limits, and hold money twice."""
    made: list[AsyncMock] = []

    class Slow(RealtimeResponses):
        async def _make(self, held: bool = True) -> Any:
            made.append(AsyncMock())
            await asyncio.sleep(0)
            return made[-1]

        def _window(self) -> None:
            """No configuration is read here."""

    async def run() -> None:
        attempt = MagicMock()
        attempt.record.charge.grant = None
        responses = Slow(MagicMock(), MagicMock(), MagicMock(), attempt, MagicMock())
        responses._next = None  # what was held with the connection has been taken
        both = [responses.hold_next(), responses.ask()]
        await asyncio.gather(*(reversed(both) if asks_first else both))
        assert len(made) == 1 and responses.responding

    asyncio.run(run())


def test_limits_are_told_in_seconds() -> None:
    headers = [
        (b"x-ratelimit-limit-tokens", b"100"), (b"x-ratelimit-remaining-tokens", b"40"),
        (b"x-ratelimit-reset-tokens", b"1m2s"),
    ]  # fmt: skip
    event = json.dumps({"type": "rate_limits.updated", "event_id": "e", "rate_limits": THEIRS})
    assert json.loads(with_limits(event, headers) or "") == {
        "type": "rate_limits.updated",
        "event_id": "e",
        "rate_limits": [{"name": "tokens", "limit": 100, "remaining": 40, "reset_seconds": 62}],
    }
    own = json.dumps({"type": "response.done", "response": {"metadata": {"x": "rate_limits.updated"}}})
    assert with_limits(own, headers) == own


async def dated(call: Call) -> None:
    """Tells its session with the dated name of its model, and the transcriber by its own name for it."""
    session: dict[str, Any] = {"type": "realtime", "model": f"{call.model}-2026-11-01"}
    await call.say("session.created", session=session)
    while True:
        event = await call.receive()
        if event["type"] == "session.update":
            session.update(event["session"], model=f"{call.model}-2026-11-01")
            await call.say("session.updated", session=session)


def test_a_session_may_be_sent_back_as_the_upstream_told_it(spoken: Realtime) -> None:
    model, token = spoken.model(dated), spoken.live.token()
    written, shut = spoken.transcriber(model, input=6), spoken.live.model(None, is_open=False)

    def update(session: dict[str, Any]) -> str:
        return json.dumps({"type": "session.update", "session": session})

    async def run() -> list[str]:
        async with spoken.connect(model, token) as socket:
            told = (await event_of(socket, "session.created"))["session"]
            await socket.send(update({**told, "audio": {"input": {"transcription": {"model": written}}}}))
            told = (await event_of(socket, "session.updated"))["session"]
            await socket.send(update(told))
            again = (await event_of(socket, "session.updated"))["session"]
            assert again == told and told["audio"]["input"]["transcription"]["model"] == f"{written}-theirs"
            refused = []
            for other in ({"model": f"{model}-of-somebody"}, {"audio": {"input": {"transcription": {"model": shut}}}}):
                await socket.send(update(other))
                refused.append((await event_of(socket, "error"))["error"]["code"])
            return refused

    assert asyncio.run(run()) == ["model_not_allowed", "model_not_allowed"]
    name = spoken.upstream_name(model)
    assert [event["session"]["model"] for event in spoken.calls(model)[0].got] == [name, name]
