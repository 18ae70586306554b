"""Client secrets of any session, and sessions that only transcribe."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import websockets
from websockets.asyncio.client import connect

from portal import limits
from tests.support.asserts import until
from tests.support.peers.realtime import CREATED, Call, RealtimeUpstream, closed, event_of, secrets
from tests.support.portal import Portal
from tests.support.server import Server

pytestmark = pytest.mark.shared

PATH = "/v1/realtime/client_secrets"
WRITTEN = {
    "type": "conversation.item.input_audio_transcription.completed",
    "item_id": "item_1",
    "transcript": "hello",
    "usage": {"type": "tokens", "input_tokens": 30, "output_tokens": 5, "total_tokens": 35},
}


DURATION = {"type": "duration", "seconds": 1}


async def transcribe(call: Call) -> None:
    await call.send({**CREATED, "session": {"type": "transcription"}})
    await call.until("input_audio_buffer.commit")
    await call.send({"type": "input_audio_buffer.committed", "item_id": "item_1"})
    await call.send({**WRITTEN, "usage": DURATION} if call.model == "by duration" else WRITTEN)


@pytest.fixture(scope="module")
def transcriber() -> Iterator[RealtimeUpstream]:
    running = RealtimeUpstream()
    running.scripts = {"theirs": transcribe, "by duration": transcribe}
    yield running
    running.stop()


def model_on(live: Portal, upstream: RealtimeUpstream, name: str = "theirs") -> str:
    channel = live.channel(upstream.base_url)
    return live.model(None, channels=[channel], upstream_name=name, price={"input": 6, "output": 10})


def transcription(model: str, **more: Any) -> dict[str, Any]:
    return {"type": "transcription", "audio": {"input": {"transcription": {"model": model, **more}}}}


def url(server: Server, query: str = "") -> str:
    return f"ws://127.0.0.1:{server.port}/v1/realtime{query}"


def test_a_secret_is_short_whatever_its_session_has(
    live: Portal, server: Server, transcriber: RealtimeUpstream
) -> None:
    from relay.models import ClientSecret

    model, token = model_on(live, transcriber), live.token()
    session = {"type": "realtime", "model": model, "instructions": "Be brief. " * 30_000}
    made = server.post(token, {"session": session}, path=PATH).json()
    assert made["value"].startswith("ek_") and len(made["value"]) < 100
    assert made["session"]["instructions"] == session["instructions"]
    assert made["value"] not in json.dumps(list(ClientSecret.objects.values("digest", "session")))

    async def run() -> None:
        protocols = [websockets.Subprotocol(name) for name in ("realtime", f"openai-insecure-api-key.{made['value']}")]
        async with connect(url(server), subprotocols=protocols) as socket:
            await event_of(socket, "session.created")
            call = transcriber.calls["theirs"][-1]
            await asyncio.to_thread(until, lambda: call.got)
            assert call.got[0]["session"]["instructions"] == session["instructions"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"session": {"type": "realtime", "model": "nobody-knows-this"}}, 404, "model_not_found"),
        ({"session": {"model": 7}}, 400, "invalid_value"),
        ({"session": {"type": "video"}}, 400, "invalid_value"),
        ({"session": {"type": "transcription"}}, 400, "missing_required_parameter"),
        ({"session": transcription("nobody-knows-this")}, 404, "model_not_found"),
        ({"expires_after": {"seconds": True}}, 400, "invalid_value"),
        ({"session": {"instructions": "x" * limits.CLIENT_SECRET_BYTES}}, 413, "request_too_large"),
    ],
)  # fmt: skip
def test_a_secret_is_made_of_a_session_that_can_be_had(
    live: Portal, server: Server, body: dict[str, Any], status: int, code: str
) -> None:
    answer = server.post(live.token(), body, path=PATH)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_secret_names_no_model_that_its_token_may_not_use(live: Portal, server: Server) -> None:
    shut = live.model(is_open=False)
    for session in ({"model": shut}, transcription(shut), {"input_audio_transcription": {"model": shut}}):
        assert server.post(live.token(), {"session": session}, path=PATH).status_code == 403


def test_secrets_end_with_their_time_their_token_and_their_user(
    live: Portal, server: Server, transcriber: RealtimeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import timedelta

    from portal.lib import clock
    from relay.models import ClientSecret, Token
    from relay.models.token import digest_of
    from relay.storage.realtime import client_secrets
    from relay.tokens.lifecycle import rotate_token

    model, user = model_on(live, transcriber), live.user()
    token = live.token(user)
    made = server.post(token, {"session": {"model": model}}, path=PATH).json()["value"]

    def opens() -> bool:
        async def run() -> bool:
            try:
                async with connect(url(server), additional_headers=secrets(made)) as socket:
                    await event_of(socket, "session.created")
                    return True
            except websockets.InvalidStatus as refused:
                assert refused.response.status_code == 401
                return False

        return asyncio.run(run())

    assert opens()
    row = Token.objects.get(digest=digest_of(token))
    rotate_token(row, actor=None)
    server.catch_up()
    assert not opens()
    ClientSecret.objects.filter(user=user).update(expires_at=clock.now() - timedelta(seconds=1))
    assert client_secrets.delete_expired(clock.now()) >= 1 and not ClientSecret.objects.filter(user=user)


def test_nobody_has_more_secrets_than_fit(live: Portal, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    from portal.lib import clock
    from relay.errors import RateLimited, RequestTooLarge
    from relay.models import Token
    from relay.storage import room
    from relay.storage.realtime import client_secrets

    user = live.user()
    live.token(user)
    token = Token.objects.get(user=user)
    now = clock.now()

    def store(secret: str, session: str = "{}") -> None:
        client_secrets.store(secret, user.pk, token.pk, token.digest, session, now, now + timedelta(seconds=600))

    before = room.used_bytes(user.pk)
    store("ek_1", "x" * 1000)
    assert room.used_bytes(user.pk) == before + 1000 + limits.ROW_BYTES
    monkeypatch.setattr(limits, "CLIENT_SECRETS", 1)
    with pytest.raises(RateLimited) as caught:
        store("ek_2")
    assert 590 < (caught.value.retry_after or 0) <= 600
    monkeypatch.setattr(limits, "CLIENT_SECRETS", 5)
    monkeypatch.setattr(room, "room_left", lambda user_id: 100)
    with pytest.raises(RequestTooLarge):
        store("ek_3")


# -- sessions that transcribe -----------------------------------------------------------------------------------------


async def commit(socket: Any) -> None:
    await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 64_000}))
    await socket.send('{"type":"input_audio_buffer.commit"}')
    await event_of(socket, "conversation.item.input_audio_transcription.completed")


@pytest.mark.parametrize("way", ["secret", "older secret", "address", "first event"])
def test_transcription_sessions(live: Portal, server: Server, transcriber: RealtimeUpstream, way: str) -> None:
    from relay.models import UsageRecord

    model = model_on(live, transcriber)
    token = secret = live.token(live.user(balance=10**12))
    query = "?intent=transcription"
    if way == "secret":
        secret, query = server.post(token, {"session": transcription(model)}, path=PATH).json()["value"], ""
    elif way == "older secret":
        body = {"input_audio_transcription": {"model": model}}
        made = server.post(token, body, path="/v1/realtime/transcription_sessions").json()
        assert made["object"] == "realtime.transcription_session"
        secret = made["client_secret"]["value"]
    elif way == "address":
        query += f"&model={model}"
    server.catch_up()

    async def run() -> None:
        async with connect(url(server, query), additional_headers=secrets(secret)) as socket:
            if way == "first event":
                await socket.send(json.dumps({"type": "session.update", "session": transcription(model)}))
            await event_of(socket, "session.created")
            if way == "address":
                await socket.send(json.dumps({"type": "session.update", "session": transcription(model)}))
            await commit(socket)

    asyncio.run(run())
    call = transcriber.calls["theirs"][-1]
    session = call.got[0]["session"]
    assert call.intent == "transcription" and session["type"] == "transcription"
    holder = (
        session["input_audio_transcription"] if way == "older secret" else session["audio"]["input"]["transcription"]
    )
    assert holder["model"] == "theirs"
    rows = until(lambda: len(found := list(UsageRecord.objects.filter(model=model).order_by("pk"))) >= 2 and found)
    assert sorted(row.cost for row in rows) == [0, 30 * 6000 + 5 * 10000]


def test_a_transcription_that_reports_seconds_is_charged_by_tokens_where_these_have_the_price(
    live: Portal, server: Server, transcriber: RealtimeUpstream
) -> None:
    from relay.models import UsageRecord

    model = model_on(live, transcriber, "by duration")
    token = live.token(live.user(balance=10**12))
    server.catch_up()

    async def run() -> None:
        address = url(server, f"?intent=transcription&model={model}")
        async with connect(address, additional_headers=secrets(token)) as socket:
            await event_of(socket, "session.created")
            await socket.send(json.dumps({"type": "session.update", "session": transcription(model)}))
            await commit(socket)

    asyncio.run(run())
    row = until(lambda: UsageRecord.objects.filter(model=model, end_reason="completed").first())
    assert row.usage_source == "estimated" and row.cost >= 10 * 6000 + 10000


@pytest.mark.parametrize(
    ("base", "query"),
    [
        ("https://api.openai.com/v1", "intent=transcription"),
        ("https://house.openai.azure.com/openai/v1", "intent=transcription"),
        ("https://speech.example.com/v1", "intent=transcription&model=a%2Fb"),
    ],
)
def test_where_the_address_of_a_transcription_names_its_model(base: str, query: str) -> None:
    from types import SimpleNamespace

    from relay.endpoints.realtime.connection import _address

    channel: Any = SimpleNamespace(urls={"realtime": httpx.URL(base + "/realtime")})
    assert _address(channel, "a/b", True).partition("?")[2] == query
    assert _address(channel, "a/b", False).partition("?")[2] == "model=a%2Fb"


@pytest.mark.parametrize(
    ("first", "code"),
    [
        ('{"type":"session.update","session":{"type":"transcription"}}', "missing_required_parameter"),
        ('{"type":"input_audio_buffer.commit"}', "missing_required_parameter"),
        ("no JSON", "invalid_json"),
        (b"\0\0", "missing_required_parameter"),
        (json.dumps({"type": "session.update", "session": transcription("nobody-knows-this")}), "model_not_found"),
    ],
)
def test_a_transcription_session_begins_with_its_model(
    live: Portal, server: Server, first: str | bytes, code: str
) -> None:
    token = live.token()
    server.catch_up()

    async def run() -> None:
        async with connect(url(server, "?intent=transcription"), additional_headers=secrets(token)) as socket:
            await socket.send(first)
            error = (await event_of(socket, "error"))["error"]
            assert error["code"] == code
            assert (await closed(socket))[0] // 100 == 44

    asyncio.run(run())


def test_a_handshake_with_long_headers_is_answered(live: Portal, server: Server, transcriber: RealtimeUpstream) -> None:
    model, token = model_on(live, transcriber), live.token()
    server.catch_up()

    async def run(headers: dict[str, str]) -> int:
        began = time.monotonic()
        try:
            async with connect(url(server, f"?model={model}"), additional_headers=headers, open_timeout=10) as socket:
                await event_of(socket, "session.created")
                return 101
        except websockets.InvalidStatus as refused:
            assert time.monotonic() - began < 10
            return refused.response.status_code

    assert asyncio.run(run({**secrets(token), "cookie": "a=" + "b" * 20_000})) == 101
    assert asyncio.run(run({"authorization": "Bearer " + "b" * 20_000})) == 401
    assert asyncio.run(run({**secrets(token), "cookie": "a=" + "b" * limits.HEADER_BYTES})) == 431


def test_a_secret_for_one_transcriber_opens_a_session_with_no_other(
    live: Portal, server: Server, transcriber: RealtimeUpstream
) -> None:
    model, other = model_on(live, transcriber), model_on(live, transcriber)
    secret = server.post(live.token(), {"session": transcription(model)}, path=PATH).json()["value"]
    server.catch_up()

    async def run() -> str:
        async with connect(url(server), additional_headers=secrets(secret)) as socket:
            await event_of(socket, "session.created")
            await socket.send(json.dumps({"type": "session.update", "session": transcription(other)}))
            return str((await event_of(socket, "error"))["error"]["code"])

    assert asyncio.run(run()) == "model_not_allowed"
