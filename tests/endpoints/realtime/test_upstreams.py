"""What upstreams of /v1/realtime say and do: errors, dead keys, broken connections, reports."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import websockets

from relay.protocols.realtime import faults
from tests.support.asserts import until
from tests.support.money import settled
from tests.support.peers.realtime import CREATED, Call, closed, event_of, wait_until_closed
from tests.support.peers.spoken import Realtime

pytestmark = pytest.mark.shared

SECRET = (
    "The server at http://10.1.2.3:8000/internal had an error with key sk-upstream-secret-0123456789 in organization "
    "org-AbCdEf123456"
)
TOLD = ("10.1.2.3", "sk-upstream", "org-AbCdEf")


def error(message: str = SECRET, kind: str = "server_error", code: str | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "error", "event_id": "event_2", "error": {"type": kind, "code": code, "message": message, **more}}


INVALID_KEY = error("Incorrect API key provided: sk-upst****6789.", "invalid_request_error", "invalid_api_key")


def failed_response(**more: Any) -> dict[str, Any]:
    details = {"type": "failed", "error": {"type": "server_error", "code": None, "message": SECRET}}
    return {"type": "response.done", "response": {"id": "r", "status": "failed", "status_details": details, **more}}


# -- what is told -----------------------------------------------------------------------------------------------------


def test_errors_of_an_upstream_are_told_without_keys_hosts_and_accounts(spoken: Realtime) -> None:
    async def script(call: Call) -> None:
        await call.send(CREATED)
        asked = await call.receive()
        await call.send(error(event_id=asked["event_id"], param="session.voice"))
        await call.send({"type": "response.created", "response": {"id": "r"}})
        await call.send(failed_response())
        heard = {"type": "conversation.item.input_audio_transcription.failed", "item_id": "i"}
        await call.send({**heard, "error": {"type": "transcription_error", "message": SECRET}})
        await call.socket.close(3000, f"server_error: {SECRET}"[:120])

    model, token = spoken.model(script), spoken.live.token()

    async def run() -> list[str]:
        got = []
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            await socket.send('{"type":"session.update","event_id":"mine","session":{}}')
            try:
                while True:
                    got.append(str(await asyncio.wait_for(socket.recv(), 20)))
            except websockets.ConnectionClosed as end:
                assert end.rcvd is not None and end.rcvd.code == 3000
                got.append(end.rcvd.reason)
        return got

    got = asyncio.run(run())
    assert not [text for text in got if any(secret in text for secret in TOLD)], got
    first = json.loads(got[0])["error"]
    assert (first["type"], first["param"], first["event_id"]) == ("server_error", "session.voice", "mine")
    assert first["message"].startswith("The server at [link removed] had an error")
    done = next(json.loads(text) for text in got if '"response.done"' in text)
    assert done["response"]["status_details"]["error"]["message"] == first["message"]
    assert json.loads(got[-2])["type"] == "error", "the end is told by an event, too"


@pytest.mark.parametrize(
    ("event", "told"),
    [
        ({"type": "error", "message": "no", "code": 7}, [{"code": 7, "message": "no", "param": None}]),
        ({"type": "error", "error": "no"}, ["no"]),
        ({"type": "error", "error": None}, []),
        ({"type": "error", "error": "no", "code": "busy"}, ["no"]),
        ({"type": "response.done", "response": {"status": "failed", "error": {"message": "a"},
                                                "status_details": {"error": {"message": "b"}}}},
         [{"message": "a"}, {"message": "b"}]),
        ({"type": "conversation.item.input_audio_transcription.failed", "error": {"message": "a"}}, [{"message": "a"}]),
        ({"type": "response.mcp_call.failed", "error": {"message": "a"}}, []),
        ({"type": "response.created", "response": {"error": {"message": "a"}, "status_details": {"error": "b"}}}, []),
        ({"type": "session.updated", "error": {"message": "a"}, "session": {"error": "a"}}, []),
    ],
)  # fmt: skip
def test_errors_are_found_wherever_an_event_has_them(event: dict[str, Any], told: list[Any]) -> None:
    found = [json.loads(faults.error_body(*place))["error"] for place in faults.errors_of(event)]
    assert sorted(map(str, found)) == sorted(map(str, told))
    faults.clean_errors(event, lambda _: {"message": "clean"})
    assert '"no"' not in json.dumps(event) and json.dumps(event).count("clean") == len(told)


def test_an_event_that_cannot_be_read_is_not_passed_on(spoken: Realtime) -> None:
    async def script(call: Call) -> None:
        await call.send(CREATED)
        await call.socket.send('{"type":"error","error":{"message":"' + SECRET)
        await call.send({"type": "input_audio_buffer.cleared"})

    model, token = spoken.model(script), spoken.live.token()

    async def run() -> None:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            assert json.loads(await asyncio.wait_for(socket.recv(), 20))["type"] == "input_audio_buffer.cleared"

    asyncio.run(run())


# -- before the session begins ----------------------------------------------------------------------------------------


async def refuse_key(call: Call) -> None:
    await call.send(INVALID_KEY)
    await call.socket.close(3000, "invalid_request_error.invalid_api_key")


async def close_at_once(call: Call) -> None:
    await call.socket.close(3000, "invalid_request_error.invalid_api_key")


async def cut(call: Call) -> None:
    call.cut()


async def begin_otherwise(call: Call) -> None:
    """As servers do whose sessions begin with a conversation (xAI), or a sign of life."""
    await call.say("ping", timestamp=1)
    await call.say("conversation.created", conversation={"id": "conv_1"})
    await refuse_key(call)


FIRST = [refuse_key, close_at_once, cut, begin_otherwise]


@pytest.mark.parametrize("first", FIRST, ids=lambda script: script.__name__)
def test_an_upstream_that_fails_before_the_session_begins_is_not_the_last(spoken: Realtime, first: Any) -> None:
    from relay.models import ApiKey, ChannelModel

    async def script(call: Call) -> None:
        if call.key == f"Bearer {dead}":
            await first(call)
        else:
            await call.send(CREATED)

    dead, good = "sk-dead-0123456789012345", "sk-good-0123456789012345"
    model = spoken.model(script, keys=(dead,))
    served = ChannelModel.objects.get(model__name=model)
    channel = served.channel
    channel.priority = 5
    channel.save()
    spare = spoken.live.channel(spoken.upstream.base_url, (good,))
    ChannelModel.objects.create(channel=spare, model=served.model, upstream_name=served.upstream_name)
    token = spoken.live.token()

    async def run() -> None:
        async with spoken.connect(model, token) as socket:
            assert await event_of(socket, "session.created")

    asyncio.run(run())
    assert [call.key for call in spoken.calls(model)] == [f"Bearer {dead}", f"Bearer {good}"]
    attempts = spoken.records(model)[0].attempt_log
    assert [attempt["outcome"] == "ok" for attempt in attempts] == [False, True]
    if first is not cut:
        assert until(lambda: ApiKey.objects.get(channel=channel).auto_disabled), "the key is noticed"


def test_all_that_comes_before_a_session_is_passed_on(spoken: Realtime) -> None:
    """Also where nothing else comes before the client has said something, as at xAI."""

    async def script(call: Call) -> None:
        await call.say("ping", timestamp=1)
        await call.say("conversation.created", conversation={"id": "conv_1"})
        await call.until("session.update")
        await call.say("session.updated", session={})

    model, token = spoken.model(script), spoken.live.token()

    async def run() -> list[str]:
        async with spoken.connect(model, token) as socket:
            found = [json.loads(await asyncio.wait_for(socket.recv(), 20))["type"] for _ in range(2)]
            await socket.send('{"type":"session.update","session":{}}')
            return [*found, (await event_of(socket, "session.updated"))["type"]]

    assert asyncio.run(run()) == ["ping", "conversation.created", "session.updated"]


def test_when_no_upstream_begins_the_handshake_is_refused_like_a_request(spoken: Realtime) -> None:
    model, token = spoken.model(refuse_key), spoken.live.token()

    async def run() -> None:
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with spoken.connect(model, token):
                pass
        answer = caught.value.response
        assert answer.status_code == 502 and answer.body is not None
        assert json.loads(bytes(answer.body))["error"]["code"] == "upstream_credentials_exhausted"

    asyncio.run(run())
    assert [(row.end_reason, row.cost) for row in spoken.records(model)] == [("upstream_error", 0)]


# -- in the middle ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1000, "completed"), (1001, "completed"), (1008, "upstream_error"), (1011, "upstream_error"),
     (3000, "upstream_error"), (4999, "upstream_error"), (0, "truncated")],
)  # fmt: skip
def test_a_connection_that_the_upstream_ends_is_recorded_as_what_it_is(
    spoken: Realtime, code: int, reason: str
) -> None:
    async def script(call: Call) -> None:
        await call.send(CREATED)
        await call.receive()
        if code:
            await call.socket.close(code, "Your session hit the maximum duration of 60 minutes.")
        else:
            call.cut()

    model, token = spoken.model(script), spoken.live.token()

    async def run() -> tuple[int, str]:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            await socket.send('{"type":"input_audio_buffer.clear"}')
            if reason != "completed":
                await event_of(socket, "error")
            return await closed(socket)

    told = asyncio.run(run())
    assert told[0] == (code or 1011)
    (row,) = spoken.records(model)
    assert (row.end_reason, row.cost) == (reason, 0)


def delta(words: int) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "response_id": "r", "delta": "word " * words}


def test_a_response_that_the_upstream_cuts_is_charged_by_what_arrived(spoken: Realtime) -> None:
    async def script(call: Call) -> None:
        await call.send(CREATED)
        await call.until("response.create")
        await call.send({"type": "response.created", "response": {"id": "r"}})
        for _ in range(4):
            await call.send(delta(100))
        call.cut()

    model = spoken.model(script)
    user = spoken.live.user(balance=10**12)
    token = spoken.live.token(user)

    async def run() -> tuple[dict[str, Any], tuple[int, str]]:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            await socket.send('{"type":"response.create"}')
            return await event_of(socket, "error"), await closed(socket)

    event, (code, _) = asyncio.run(run())
    assert (event["error"]["code"], code) == ("upstream_truncated", 1011)
    (row,) = spoken.records(model)
    assert (row.end_reason, row.usage_source) == ("truncated", "estimated")
    assert 0 < row.input_tokens < 100, "what was said, and not what is held for it"
    assert 300 < row.output_tokens < 600 and settled(user).used == row.cost > 0


@pytest.mark.parametrize(
    ("done", "words", "expected"),
    [
        ({"status": "cancelled", "usage": None}, 0, ("completed", 0)),
        ({"status": "failed"}, 0, ("upstream_error", 0)),
        ({"status": "cancelled", "usage": None}, 100, ("completed", 1)),
        ({"status": "failed"}, 100, ("upstream_error", 1)),
        ({"status": "failed", "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}}, 0,
         ("upstream_error", 10 * 4000 + 5 * 16000)),
    ],
)  # fmt: skip
def test_failed_and_cancelled_responses_cost_what_was_made(
    spoken: Realtime, done: dict[str, Any], words: int, expected: tuple[str, int]
) -> None:
    async def script(call: Call) -> None:
        await call.send(CREATED)
        await call.until("response.create")
        await call.send({"type": "response.created", "response": {"id": "r"}})
        if words:
            await call.send(delta(words))
        await call.send({"type": "response.done", "response": {"id": "r", **done}})

    model, token = spoken.model(script), spoken.live.token()

    async def run() -> None:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            await socket.send('{"type":"response.create"}')
            await event_of(socket, "response.done")

    asyncio.run(run())
    row = spoken.records(model)[0]
    reason, cost = expected
    assert row.end_reason == reason and (row.cost > 0 if cost == 1 else row.cost == cost)


@pytest.mark.parametrize(
    ("into", "cost"),
    [
        ({"text_tokens": 100, "audio_tokens": 1200, "cached_tokens": 1000,
          "cached_tokens_details": {"audio_tokens": 1000}}, 100 * 4000 + 1000 * 400 + 200 * 32000),
        ({"text_tokens": 100, "audio_tokens": 1200, "cached_tokens": 100,
          "cached_tokens_details": {"text_tokens": 100, "audio_tokens": 0}}, 100 * 400 + 1200 * 32000),
        ({"text_tokens": 100, "audio_tokens": 1200, "cached_tokens": 1000,
          "cached_tokens_details": {"audio_tokens": 10**9}}, 100 * 4000 + 1000 * 400 + 200 * 32000),
        ({"text_tokens": 100, "audio_tokens": 1200, "cached_tokens": 1000, "cached_tokens_details": "all"},
         1000 * 400 + 300 * 32000),
    ],
)  # fmt: skip
def test_cached_audio_is_billed_once(into: dict[str, Any], cost: int) -> None:
    from relay.billing.prices import Price
    from relay.billing.prices import cost as cost_of
    from relay.protocols.responses.usage import parse_responses_usage

    raw = json.dumps({"input_tokens": 1300, "output_tokens": 0, "input_token_details": into}).encode()
    usage = parse_responses_usage(raw)
    price = Price(input=4 * 10**9, cached_input=4 * 10**8, audio_input=32 * 10**9, output=16 * 10**9)
    assert usage is not None and cost_of(price, usage) == cost


# -- the models of a session ------------------------------------------------------------------------------------------


async def listen(call: Call) -> None:
    await call.send(CREATED)
    await wait_until_closed(call)


@pytest.mark.parametrize("older", [False, True])
def test_what_writes_speech_down_is_a_model_that_the_token_may_use(spoken: Realtime, older: bool) -> None:
    from relay.models import ChannelModel, Model

    model, token = spoken.model(listen), spoken.live.token()
    shut, open_to_all = spoken.live.model(is_open=False), spoken.live.model()
    channel = ChannelModel.objects.get(model__name=model).channel
    ChannelModel.objects.create(
        channel=channel, model=Model.objects.get(name=open_to_all), upstream_name="whisper-of-theirs"
    )

    def update(name: Any) -> str:
        holder = {"input_audio_transcription": name} if older else {"audio": {"input": {"transcription": name}}}
        return json.dumps({"type": "session.update", "session": {"type": "realtime", **holder}})

    async def run() -> None:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            for name, code in (
                ({"model": shut}, "model_not_allowed"),
                ({"model": "nobody-knows-this"}, "model_not_found"),
                ({"language": "en"}, "missing_required_parameter"),
                ({"model": 7}, "missing_required_parameter"),
            ):
                await socket.send(update(name))
                told = (await event_of(socket, "error"))["error"]
                assert told["code"] == code and told["param"].endswith("transcription.model")
            for taken in ({"model": open_to_all}, {"language": "de"}, None):
                await socket.send(update(taken))

    asyncio.run(run())
    (call,) = spoken.calls(model)
    until(lambda: len(call.got) == 3)
    path = call.got[0]["session"]
    named = path["input_audio_transcription"] if older else path["audio"]["input"]["transcription"]
    assert named == {"model": "whisper-of-theirs"}


def test_parameters_that_name_other_models_are_left_out(spoken: Realtime) -> None:
    model, token = spoken.model(listen), spoken.live.token()

    async def run() -> None:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            session = {"voice": "alloy", "models": ["dear"], "tools": [{"type": "function", "model": "dear"}]}
            await socket.send(json.dumps({"type": "session.update", "session": session}))
            await socket.send(json.dumps({"type": "response.create", "response": {"fallbacks": ["dear"]}}))

    asyncio.run(run())
    (call,) = spoken.calls(model)
    until(lambda: len(call.got) >= 2)
    assert call.got[0]["session"] == {"voice": "alloy", "tools": [{"type": "function"}]}
    assert call.got[1]["response"] == {}


def test_headers_that_a_channel_sets_for_a_model_are_sent_with_its_sessions(spoken: Realtime) -> None:
    """A rule may name a model as users call it."""
    from relay.models import ChannelModel

    async def script(call: Call) -> None:
        await call.send(CREATED)
        await wait_until_closed(call)

    model, token = spoken.model(script), spoken.live.token()
    channel = ChannelModel.objects.get(model__name=model).channel
    channel.overrides = [
        {"do": "set_header", "header": "X-Team", "value": "acme", "models": [model]},
        {"do": "set_header", "header": "X-Other", "value": "acme", "models": ["another"]},
    ]
    channel.save()

    async def run() -> None:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")

    asyncio.run(run())
    sent = spoken.calls(model)[-1].socket.request
    assert sent is not None and sent.headers["x-team"] == "acme" and "x-other" not in sent.headers
