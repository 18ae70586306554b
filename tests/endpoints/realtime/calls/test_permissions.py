"""What tokens and client secrets may do with calls, and transcribers that nobody has asked for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect

from portal.lib.json import Json
from relay.endpoints.realtime.client_secrets import completed
from tests.support.asserts import until
from tests.support.peers.calling import PRICE, Calls, begun, done, listen
from tests.support.peers.realtime import CREATED, Call, event_of, secrets

pytestmark = pytest.mark.shared


def limited_token(calls: Calls, user: Any, model: str) -> str:
    """A token of the user for one model."""
    from relay.models import Model

    return calls.live.token(user, models_allowed=[Model.objects.get(name=model)])


def transcription(model: str, older: bool = False) -> dict[str, Any]:
    named = {"model": model}
    return {"input_audio_transcription": named} if older else {"audio": {"input": {"transcription": named}}}


def join(calls: Calls, call_id: str, token: str) -> Any:
    address = f"ws://127.0.0.1:{calls.server.port}/v1/realtime?call_id={call_id}"
    return connect(address, additional_headers=secrets(token))


def test_a_token_for_other_models_neither_joins_a_call_nor_ends_it(calls: Calls) -> None:
    """One for its model does both, and the token that made it may always end it."""
    from relay.models import Model, Token

    model, other = calls.model(listen), calls.model(listen)
    owner = calls.live.user()
    token, elsewhere, same = (
        calls.live.token(owner), limited_token(calls, owner, other), limited_token(calls, owner, model)
    )  # fmt: skip
    location = calls.make(token, model).headers["location"]
    call_id = location.rpartition("/")[2]

    async def run() -> None:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with join(calls, call_id, elsewhere):
                pass
        assert refused.value.response.status_code == 403
        async with join(calls, call_id, same):
            pass

    asyncio.run(run())
    answer = calls.server.post(elsewhere, {}, path=f"{location}/hangup")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_allowed"), answer.text
    assert not calls.taken(model).over
    own = Token.objects.get(user=owner, models_limited=False)
    own.models_limited = True
    own.save()
    own.models_allowed.set([Model.objects.get(name=other)])
    calls.server.catch_up()
    assert calls.server.post(token, {}, path=f"{location}/hangup").status_code == 200
    assert calls.taken(model).over


def test_nobody_joins_a_call_of_a_model_that_is_not_theirs_any_more(calls: Calls) -> None:
    from relay.models import Model

    model, owner = calls.model(listen), calls.live.user()
    token = calls.live.token(owner)
    location = calls.make(token, model).headers["location"]
    shut = Model.objects.get(name=model)
    shut.is_open = False
    shut.save()
    calls.server.catch_up()

    async def run() -> int:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with join(calls, location.rpartition("/")[2], token):
                pass
        return refused.value.response.status_code

    assert asyncio.run(run()) == 403
    assert calls.server.post(token, {}, path=f"{location}/hangup").status_code == 200


# -- client secrets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("older", [False, True])
def test_a_form_names_no_other_transcriber_than_the_secret(calls: Calls, older: bool) -> None:
    cheap, dear = calls.model(listen), calls.model(listen)
    token = calls.live.token()
    calls.server.catch_up()
    session = {"type": "transcription", **transcription(cheap)}
    made = calls.server.post(token, {"session": session}, path="/v1/realtime/client_secrets").json()
    answer = calls.make(made["value"], cheap, **transcription(dear, older))
    assert answer.status_code == 201, answer.text
    assert not calls.upstream.of(calls.upstream_name(dear))
    sent = calls.taken(cheap).session
    assert sent == {"type": "transcription", **transcription(calls.upstream_name(cheap))}


def test_a_secret_without_a_type_makes_no_call_that_only_transcribes(calls: Calls) -> None:
    model, dear = calls.model(listen), calls.model(listen)
    made = calls.server.post(calls.live.token(), {"session": {"model": model}}, path="/v1/realtime/client_secrets")
    answer = calls.make(made.json()["value"], model, type="transcription", **transcription(dear))
    assert answer.status_code in {201, 403}, answer.text
    assert not calls.upstream.of(calls.upstream_name(dear))


@pytest.mark.parametrize(
    ("secret", "form", "session"),
    [
        ({"model": "a"}, {"model": "b", "type": "transcription"}, {"model": "a"}),
        ({"audio": {"output": {"voice": "x"}}}, {"voice": "y"}, {"audio": {"output": {"voice": "x"}}}),
        ({"voice": "x"}, {"audio": {"output": {"voice": "y", "speed": 1}}},
         {"voice": "x", "audio": {"output": {"speed": 1}}}),
        ({"audio": {"input": {"transcription": None}}}, {"input_audio_transcription": {"model": "b"}},
         {"audio": {"input": {"transcription": None}}}),
        ({"audio": {"input": {"transcription": {"model": "a"}}}},
         {"audio": {"input": {"transcription": {"model": "b", "language": "en"}, "turn_detection": None}}},
         {"audio": {"input": {"transcription": {"model": "a", "language": "en"}, "turn_detection": None}}}),
        ({"tools": []}, {"tools": [{"type": "mcp"}], "instructions": "i"}, {"tools": [], "instructions": "i"}),
        ({"max_output_tokens": 5}, {"max_response_output_tokens": "inf"}, {"max_output_tokens": 5}),
        ({"audio": {"input": {}}}, {"audio": "x"}, {"audio": {"input": {}}}),
        ({}, {"model": "b", "audio": {"input": {}}}, {"model": "b", "audio": {"input": {}}}),
    ],
)  # fmt: skip
def test_what_a_secret_fixed_stands(secret: Json, form: Json, session: Json) -> None:
    assert completed(secret, form) == {"type": "realtime", **session}


# -- transcribers that the upstream names ------------------------------------------------------------------------------


def updated(name: str | None) -> dict[str, Any]:
    named = {"model": name} if name else None
    return {"type": "session.updated", "session": {"type": "realtime", "audio": {"input": {"transcription": named}}}}


def test_a_transcriber_that_nobody_asked_for_is_turned_off_and_the_call_goes_on(calls: Calls) -> None:
    async def script(call: Call) -> None:
        await call.send(CREATED)
        await call.send(updated("whisper-default"))
        update = await call.until("session.update")
        assert update["session"] == {"type": "realtime", "audio": {"input": {"transcription": None}}}
        await call.send(updated(None))
        await call.send(begun("r"))
        await call.send(done("r"))

    model, token = calls.model(script), calls.live.token()
    assert calls.make(token, model).status_code == 201
    (record,) = calls.records(model)
    assert (record.end_reason, record.cost > 0) == ("completed", True)
    assert not calls.taken(model).over


def test_a_transcriber_that_nobody_knows_and_that_comes_back_ends_the_call(calls: Calls) -> None:
    async def script(call: Call) -> None:
        await call.send(CREATED)
        await call.send(updated("whisper-default"))
        while True:
            await call.until("session.update")
            await call.send(updated("whisper-default"))

    model, token = calls.model(script), calls.live.token()
    assert calls.make(token, model).status_code == 201
    until(lambda: calls.taken(model).over)
    assert "a model that its token may not use" in calls.records(model)[0].error_message


def test_what_the_session_asked_for_is_put_back(calls: Calls) -> None:
    """Its client has named another one to the upstream, which the portal does not have."""

    async def script(call: Call) -> None:
        await call.send(CREATED)
        await call.send(updated("unheard-of"))
        update = await call.until("session.update")
        await call.send(updated(update["session"]["audio"]["input"]["transcription"]["model"]))

    model, token = calls.model(script), calls.live.token()
    written = calls.live.model(None, channels=[], price=PRICE)
    from relay.models import ChannelModel, Model

    channel = ChannelModel.objects.get(model__name=model).channel
    ChannelModel.objects.create(channel=channel, model=Model.objects.get(name=written), upstream_name="theirs")
    assert calls.make(token, model, **transcription(written)).status_code == 201
    call = until(lambda: next(iter(calls.upstream.calls[calls.upstream_name(model)]), None))
    until(lambda: call.got)
    assert call.got[0]["session"]["audio"]["input"]["transcription"] == {"model": "theirs"}
    assert not calls.taken(model).over


def test_a_sideband_may_send_back_what_it_was_told(calls: Calls) -> None:
    model, token = calls.model(listen), calls.live.token()
    location = calls.make(token, model).headers["location"]
    theirs = calls.upstream_name(model)
    calls.server.catch_up()

    async def run() -> None:
        async with join(calls, location.rpartition("/")[2], token) as socket:
            own = await asyncio.to_thread(until, lambda: calls.taken(model).sidebands[1:])
            told = {"type": "session.updated", "session": {"model": "their-name-2026"}}
            await asyncio.to_thread(calls.say, model, told, to=1)
            await event_of(socket, "session.updated")
            await socket.send('{"type":"session.update","session":{"model":"their-name-2026"}}')
            await asyncio.to_thread(until, lambda: own[0].got)
            assert own[0].got[0]["session"]["model"] == theirs

    asyncio.run(run())
