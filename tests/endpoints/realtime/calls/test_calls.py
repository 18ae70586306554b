"""Calls over WebRTC: made by the portal, counted on its sideband, limited, hung up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
import websockets
from websockets.asyncio.client import connect

from tests.support.asserts import until
from tests.support.money import settled, wallet
from tests.support.peers.calling import COST, OFFER, PATH, PRICE, Calls, begun, delta, done, listen, post
from tests.support.peers.realtime import ANSWER, CREATED, Call, closed, event_of, secrets
from tests.support.server import Server

pytestmark = pytest.mark.shared


# -- what a call is ----------------------------------------------------------------------------------------------------


def test_a_call_is_made_counted_and_hung_up(calls: Calls) -> None:
    model, user = calls.model(listen), calls.live.user(balance=10**12)
    token = calls.live.token(user)
    answer = calls.make(token, model, instructions="Be brief.")
    assert (answer.status_code, answer.text) == (201, ANSWER), answer.text
    assert answer.headers["content-type"] == "application/sdp"
    location = answer.headers["location"]
    taken = calls.taken(model)
    assert location.startswith(f"{PATH}/rtc_") and taken.id not in location
    assert taken.offer == OFFER and taken.key == "Bearer sk-upstream-secret-0123456789"
    assert taken.session == {"type": "realtime", "model": calls.upstream_name(model), "instructions": "Be brief."}
    assert wallet(user).reserved > 0
    calls.say(model, begun("r"), delta("r"), done("r"))
    (record,) = calls.records(model)
    assert (record.cost, record.usage_source, record.endpoint) == (COST, "reported", "realtime")
    for other, status in ((calls.live.token(), 404), (calls.live.token(user), 200)):
        assert calls.server.post(other, {}, path=f"{location}/hangup").status_code == status
    assert taken.over
    last = calls.records(model, 2)[1]
    assert (last.end_reason, last.cost) == ("client_gone", 0)
    assert record.request_id == answer.headers["x-request-id"]
    assert settled(user).used == COST
    until(lambda: calls.server.post(token, {}, path=f"{location}/hangup").status_code == 404)


def test_a_client_secret_makes_the_call_that_it_is_for(calls: Calls) -> None:
    model, other = calls.model(listen), calls.model(listen)
    session = {"type": "realtime", "model": model, "instructions": "Be kind."}
    made = calls.server.post(calls.live.token(), {"session": session}, path="/v1/realtime/client_secrets").json()
    plain = {**secrets(made["value"]), "content-type": "application/sdp"}
    answer = httpx.post(calls.server.url + PATH, content=OFFER, headers=plain, timeout=60, trust_env=False)
    assert answer.status_code == 201, answer.text
    assert calls.taken(model).session["instructions"] == "Be kind."
    assert calls.make(made["value"], other, voice="marin").status_code == 201
    last = calls.upstream.of(calls.upstream_name(model))[-1]
    assert last.session["voice"] == "marin" and not calls.upstream.of(calls.upstream_name(other))


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({"sdp": OFFER}, 400, "missing_required_parameter", "session.model"),
        ({"sdp": "hello", "session": "{}"}, 400, "invalid_value", "sdp"),
        ({"session": "{}"}, 400, "invalid_value", "sdp"),
        ({"sdp": OFFER, "session": "{"}, 400, "invalid_json", None),
        ({"sdp": OFFER, "session": '{"type":"video"}'}, 400, "invalid_value", "session.type"),
        ({"sdp": OFFER, "session": '{"model":"nobody-knows-this"}'}, 404, "model_not_found", "model"),
        ({"sdp": OFFER + "a" * 70_000, "session": "{}"}, 413, "request_too_large", "sdp"),
        ({"sdp": OFFER, "session": '{"Model":"x"}'}, 400, "invalid_json", "model"),
    ],
)  # fmt: skip
def test_what_is_no_call_is_refused(calls: Calls, fields: dict[str, str], status: int, code: str, param: Any) -> None:
    token = calls.live.token()
    calls.server.catch_up()
    answer = post(calls.server, token, fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert answer.json()["error"]["param"] == param


def test_telephone_calls_are_not_served_and_the_answer_says_what_is(calls: Calls) -> None:
    token = calls.live.token()
    for action in ("accept", "reject", "refer"):
        error = calls.server.post(token, {}, path=f"{PATH}/rtc_1/{action}").json()["error"]
        assert error["code"] == "not_implemented" and "/v1/realtime/calls" in error["message"]


# -- models ------------------------------------------------------------------------------------------------------------


def transcription(model: str) -> dict[str, Any]:
    return {"input": {"transcription": {"model": model}}}


def test_no_model_is_used_that_the_token_may_not_use(calls: Calls) -> None:
    shut, model = calls.model(listen, is_open=False), calls.model(listen)
    token = calls.live.token()
    assert calls.make(token, shut).status_code == 403
    assert calls.make(token, model, audio=transcription(shut)).status_code == 403
    assert not calls.upstream.of(calls.upstream_name(model))


def test_a_transcriber_that_the_client_names_to_the_upstream_itself_is_looked_at(calls: Calls) -> None:
    model, token = calls.model(listen), calls.live.token(calls.live.user(balance=10**12))
    from relay.models import Channel

    channel = Channel.objects.get(served__model__name=model)
    known = calls.live.model(None, channels=[channel], upstream_name="theirs", price={"input": 100, "output": 200})
    shut = calls.live.model(None, channels=[channel], upstream_name="shut", is_open=False, price=PRICE)
    assert calls.make(token, model).status_code == 201

    def updated(name: str) -> dict[str, Any]:
        return {"type": "session.updated", "session": {"type": "realtime", "audio": transcription(name)}}

    calls.say(
        model,
        updated("theirs"),
        {"type": "input_audio_buffer.speech_started", "item_id": "i"},
        {"type": "input_audio_buffer.committed", "item_id": "i"},
        {
            "type": "conversation.item.input_audio_transcription.completed",
            "item_id": "i",
            "transcript": "hello",
            "usage": {"type": "tokens", "input_tokens": 30, "output_tokens": 5, "total_tokens": 35},
        },
    )
    assert calls.records(known)[0].cost == 30 * 100_000 + 5 * 200_000
    assert not calls.taken(model).over
    calls.say(model, updated("shut"))
    until(lambda: calls.taken(model).over)
    record = calls.records(model)[0]
    assert "a model that its token may not use" in record.error_message and shut not in record.error_message


# -- money, limits, ends -----------------------------------------------------------------------------------------------


def test_a_call_is_hung_up_when_the_money_ends(calls: Calls) -> None:
    model, user = calls.model(listen), calls.live.user(balance=100_000_000)
    token = calls.live.token(user)
    assert calls.make(token, model).status_code == 201
    calls.say(model, begun("r"), done("r", {"input_tokens": 2000, "output_tokens": 5500, "total_tokens": 7500}))
    until(lambda: calls.taken(model).over)
    assert settled(user).used == 2000 * 4_000 + 5500 * 16_000
    assert calls.records(model, 1)[0].cost == 96_000_000


def test_a_response_that_outgrows_the_money_is_cancelled_and_its_call_hung_up(calls: Calls) -> None:
    usage = {"input_tokens": 2000, "output_tokens": 9000, "total_tokens": 11_000}

    async def script(call: Call) -> None:
        await call.send(CREATED)
        await call.send(begun("r"))
        for _ in range(70):
            await call.send(delta("r"))
        cancelled = await call.until("response.cancel")
        assert cancelled["response_id"] == "r"
        await call.send(done("r", usage, "cancelled"))

    model, user = calls.model(script), calls.live.user(balance=100_000_000)
    token = calls.live.token(user)
    assert calls.make(token, model).status_code == 201
    until(lambda: calls.taken(model).over)
    record = next(one for one in calls.records(model) if one.cost)
    assert (record.usage_source, record.output_tokens, record.end_reason) == ("reported", 9000, "ended")
    assert settled(user).balance == 0


def test_a_call_is_hung_up_when_its_token_is_revoked(calls: Calls) -> None:
    from relay.models import Token
    from relay.tokens.lifecycle import revoke_token

    model, user = calls.model(listen), calls.live.user(balance=10**12)
    token = calls.live.token(user)
    assert calls.make(token, model).status_code == 201
    calls.say(model, begun("r"), delta("r"))
    until(lambda: Token.objects.filter(user=user).exists())
    revoke_token(Token.objects.get(user=user), actor=None)
    until(lambda: calls.taken(model).over)
    record = next(one for one in calls.records(model) if one.output_tokens)
    assert (record.usage_source, record.output_tokens) == ("estimated", 125)
    assert settled(user).used == record.cost > 0


def test_a_call_counts_among_the_requests_at_once_until_it_ends(calls: Calls) -> None:
    from relay.models import Token

    model, user = calls.model(listen), calls.live.user()
    token = calls.live.token(user)
    Token.objects.filter(user=user).update(max_concurrency=1)
    calls.server.catch_up()
    answer = calls.make(token, model)
    assert answer.status_code == 201
    assert calls.make(token, model).json()["error"]["code"] == "concurrency_limit_exceeded"
    assert calls.server.post(token, {}, path=f"{answer.headers['location']}/hangup").status_code == 200
    until(lambda: calls.make(token, model).status_code == 201)


def test_nobody_has_more_calls_than_fit(calls: Calls) -> None:
    from datetime import timedelta

    from portal import limits
    from portal.lib import clock
    from relay.models import RealtimeCall, Token

    model, user = calls.model(listen), calls.live.user()
    token = calls.live.token(user)
    until_ = clock.now() + timedelta(minutes=5)
    rows = [
        RealtimeCall(
            call_id=f"rtc_full_{number}", upstream_id="x", user=user, token=Token.objects.get(user=user), model=model,
            channel_id=0, key_id=0, owner="elsewhere:1", created_at=clock.now(), ends_at=until_, lease_until=until_,
        )
        for number in range(limits.REALTIME_CALLS)
    ]  # fmt: skip
    RealtimeCall.objects.bulk_create(rows)
    try:
        assert calls.make(token, model).json()["error"]["code"] == "rate_limit_exceeded"
        assert not calls.upstream.of(calls.upstream_name(model))
    finally:
        RealtimeCall.objects.filter(user=user).delete()


# -- upstreams that fail -----------------------------------------------------------------------------------------------


def test_a_dead_key_is_not_the_last(calls: Calls) -> None:
    model, token = calls.model(listen, keys=("sk-dead-0123456789012345",)), calls.live.token()
    from relay.models import Channel, ChannelModel, Model

    Channel.objects.filter(served__model__name=model).update(priority=5)
    spare = calls.live.channel(calls.upstream.base_url, ("sk-good-0123456789012345",))
    name = calls.upstream_name(model)
    ChannelModel.objects.create(channel=spare, model=Model.objects.get(name=model), upstream_name=name)
    answer = calls.make(token, model)
    assert (answer.status_code, answer.headers["x-relay-attempts"]) == (201, "2")
    assert calls.taken(model).key == "Bearer sk-good-0123456789012345"


def test_a_call_that_can_be_joined_a_moment_later_only_is_joined_then(calls: Calls) -> None:
    model, token = calls.model(listen), calls.live.token()
    calls.upstream.joins[calls.upstream_name(model)] = 2
    assert calls.make(token, model).status_code == 201


def test_a_call_that_cannot_be_joined_is_hung_up_and_its_client_gets_no_answer(calls: Calls) -> None:
    model, user = calls.model(listen), calls.live.user(balance=10**12)
    token = calls.live.token(user)
    calls.upstream.joins[calls.upstream_name(model)] = 100
    answer = calls.make(token, model)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error"), answer.text
    until(lambda: all(one.over for one in calls.upstream.of(calls.upstream_name(model))))
    (record,) = calls.records(model)
    assert (record.end_reason, record.cost, settled(user).used) == ("upstream_error", 0, 0)


def test_what_an_upstream_says_of_a_call_that_it_refuses_is_cleaned(calls: Calls) -> None:
    model, token = calls.model(listen), calls.live.token()
    said = "The key sk-upstream-secret-0123456789 of org-AbCdEf123456 has no calls."
    calls.upstream.refused[calls.upstream_name(model)] = 400, said
    answer = calls.make(token, model)
    assert answer.status_code == 400 and "has no calls" in answer.json()["error"]["message"]
    assert "sk-upstream" not in answer.text and "org-AbCdEf" not in answer.text


def test_a_call_whose_sideband_breaks_is_hung_up(calls: Calls) -> None:
    model, user = calls.model(listen), calls.live.user(balance=10**12)
    token = calls.live.token(user)
    assert calls.make(token, model).status_code == 201
    calls.say(model, begun("r"), delta("r"))
    calls.upstream._loop.call_soon_threadsafe(calls.taken(model).sidebands[0].cut)
    until(lambda: calls.taken(model).over)
    record = next(one for one in calls.records(model) if one.output_tokens)
    assert (record.end_reason, record.usage_source, record.cost > 0) == ("truncated", "estimated", True)


# -- the client's own sideband -----------------------------------------------------------------------------------------


def sideband(server: Server, call_id: str, token: str) -> Any:
    address = f"ws://127.0.0.1:{server.port}/v1/realtime?call_id={call_id}"
    return connect(address, additional_headers=secrets(token))


def test_a_client_joins_its_own_call_and_no_other(calls: Calls) -> None:
    shut, model = calls.model(listen, is_open=False), calls.model(listen)
    owner = calls.live.user()
    token, stranger = calls.live.token(owner), calls.live.token(calls.live.user(is_staff=True))
    location = calls.make(token, model).headers["location"]
    call_id = location.rpartition("/")[2]
    calls.server.catch_up()

    async def run() -> None:
        for who in (stranger, "ek_unknown"):
            with pytest.raises(websockets.InvalidStatus) as caught:
                async with sideband(calls.server, call_id, who):
                    pass
            assert caught.value.response.status_code == (404 if who == stranger else 401)
        async with sideband(calls.server, call_id, token) as socket:
            own = await asyncio.to_thread(until, lambda: calls.taken(model).sidebands[1:])
            secret = {
                "type": "error",
                "error": {"type": "server_error", "message": "key sk-upstream-secret-0123456789"},
            }
            await asyncio.to_thread(calls.say, model, secret, to=1)
            assert "sk-upstream" not in (await event_of(socket, "error"))["error"]["message"]
            update = {"type": "session.update", "session": {"audio": transcription(shut)}}
            await socket.send(json.dumps(update))
            assert (await event_of(socket, "error"))["error"]["code"] == "model_not_allowed"
            await socket.send('{"type":"response.create"}')
            await asyncio.to_thread(until, lambda: own[0].got)
            assert [event["type"] for event in own[0].got] == ["response.create"]
            await asyncio.to_thread(calls.server.post, token, {}, f"{location}/hangup")
            assert (await closed(socket))[0] == 1000

    asyncio.run(run())
