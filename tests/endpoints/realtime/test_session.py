"""/v1/realtime: relayed both ways, accounted, limited, ended when nothing is left."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect

from relay.protocols.fields import BadRequest
from relay.protocols.realtime.events import client_event
from tests.support.asserts import until as happens
from tests.support.money import settled, wallet
from tests.support.peers.obedient import Obedient
from tests.support.portal import Portal
from tests.support.server import Server

pytestmark = pytest.mark.shared

PRICE = {"input": 4, "output": 24, "audio_input": 32, "audio_output": 64}


COST = (20 - 4 - 10) * 4000 + 4 * 4000 + 10 * 32000 + 2 * 24000 + 8 * 64000


@pytest.fixture(scope="module")
def realtime() -> Iterator[Obedient]:
    running = Obedient()
    yield running
    running.stop()


@pytest.fixture
def model(live: Portal, server: Server, realtime: Obedient) -> str:
    name = live.model(None, base_url=realtime.base_url, price=PRICE, upstream_name="gpt-realtime")
    server.catch_up()
    return name


def url(server: Server, model: str = "") -> str:
    return f"ws://127.0.0.1:{server.port}/v1/realtime" + (f"?model={model}" if model else "")


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def until(socket: ClientConnection, kind: str) -> dict[str, Any]:
    while True:
        event: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 100))
        if event["type"] == kind:
            return event


def records(model: str, count: int) -> list[Any]:
    from relay.models import UsageRecord

    found: list[Any] = happens(
        lambda: len(found := list(UsageRecord.objects.filter(model=model).order_by("pk"))) >= count and found
    )
    return found


def test_each_response_is_recorded_before_its_last_event(
    live: Portal, server: Server, realtime: Obedient, model: str
) -> None:
    from relay.models import UsageRecord

    token = live.token(live.user(balance=10**12))

    async def run() -> None:
        async with connect(url(server, model), additional_headers=bearer(token)) as socket:
            await until(socket, "session.created")
            for number in (1, 2):
                await socket.send('{"type":"response.create"}')
                await until(socket, "response.done")
                assert (
                    await asyncio.to_thread(UsageRecord.objects.filter(model=model, end_reason="completed").count)
                    == number
                )

    asyncio.run(run())
    found = records(model, 3)
    assert [(row.cost, row.output_tokens, row.audio_output_tokens, row.usage_source) for row in found[:2]] == [
        (COST, 10, 8, "reported")
    ] * 2
    assert found[2].cost == 0 and found[2].end_reason == "client_gone"
    assert len({row.request_id for row in found}) == 3 and found[0].endpoint == "realtime"
    assert realtime.last.path == "/v1/realtime?model=gpt-realtime"
    assert realtime.last.key.startswith("Bearer sk-upstream")


def test_speech_that_is_written_down_is_priced_as_its_own_model(live: Portal, server: Server, model: str) -> None:
    from relay.models import Model, ModelPrice

    heard, _ = Model.objects.get_or_create(name="heard")
    ModelPrice.objects.get_or_create(model=heard, input=100, output=200)
    server.catch_up()

    async def run() -> None:
        async with connect(url(server, model), additional_headers=bearer(live_token)) as socket:
            await until(socket, "session.created")
            await socket.send('{"type":"speak"}')
            await until(socket, "conversation.item.input_audio_transcription.completed")

    live_token = live.token()
    server.catch_up()
    asyncio.run(run())
    assert records("heard", 1)[-1].cost == 3 * 100_000 + 2 * 200_000


def heard_priced(server: Server) -> None:
    from relay.models import Model, ModelPrice

    heard, _ = Model.objects.get_or_create(name="heard")
    ModelPrice.objects.get_or_create(model=heard, input=100, output=200)
    server.catch_up()


def transcriptions_of(user: Any) -> list[Any]:
    from relay.models import UsageRecord

    return list(UsageRecord.objects.filter(model="heard", user=user))


def speech(seconds: int = 1) -> str:
    return json.dumps({"type": "input_audio_buffer.append", "audio": "A" * (64_000 * seconds)})


WRITTEN = {"type": "tokens", "input_tokens": 300, "output_tokens": 50, "total_tokens": 350}
WRITTEN_COST = 300 * 100_000 + 50 * 200_000


def test_transcriptions_are_paid_from_what_the_session_holds_and_end_it_when_that_is_spent(
    live: Portal, server: Server, realtime: Obedient, model: str
) -> None:
    """All is held for the first response: a quarter of the balance for each transcription, and thirty asked for."""
    heard_priced(server)
    user = live.user(balance=100_000_000)
    token, before = live.token(user), realtime.commits
    server.catch_up()

    async def run() -> None:
        async with connect(url(server, model), additional_headers=bearer(token)) as socket:
            await until(socket, "session.created")
            for _ in range(30):
                await socket.send(json.dumps({"type": "input_audio_buffer.commit", "usage": WRITTEN}))
            assert (await until(socket, "error"))["error"]["code"] == "insufficient_quota"
            with pytest.raises(websockets.ConnectionClosed):
                while True:
                    await asyncio.wait_for(socket.recv(), 60)

    asyncio.run(run())
    made = realtime.commits - before
    assert 1 <= made <= 3, "as many as can be paid, and one more"
    rows = happens(lambda: found if len(found := transcriptions_of(user)) == made else None)
    assert sum(row.cost for row in rows) == made * WRITTEN_COST
    assert settled(user).used == min(made * WRITTEN_COST, 100_000_000)


def test_one_transcription_after_the_other_is_charged_until_nothing_is_left_for_a_response(
    live: Portal, server: Server, realtime: Obedient, model: str
) -> None:
    heard_priced(server)
    user = live.user(balance=200_000_000)
    token = live.token(user)
    server.catch_up()

    async def run() -> None:
        async with connect(url(server, model), additional_headers=bearer(token)) as socket:
            await until(socket, "session.created")
            with pytest.raises(websockets.ConnectionClosed):
                for _ in range(30):
                    await socket.send(json.dumps({"type": "input_audio_buffer.commit", "usage": WRITTEN}))
                    await until(socket, "conversation.item.input_audio_transcription.completed")

    asyncio.run(run())
    made = len(transcriptions_of(user))
    assert made == 5, "four leave less than a response needs to begin"
    assert settled(user).used == 5 * WRITTEN_COST


def test_audio_is_not_sent_beyond_what_its_transcription_can_be_paid_with(
    live: Portal, server: Server, realtime: Obedient, model: str
) -> None:
    heard_priced(server)
    user = live.user(balance=100_000_000)
    token = live.token(user)
    server.catch_up()
    got = len(realtime.got)

    async def run() -> None:
        async with connect(url(server, model), additional_headers=bearer(token)) as socket:
            await until(socket, "session.created")
            await socket.send(json.dumps({"type": "session.update", "session": {"turn_detection": None}}))
            told = asyncio.ensure_future(until(socket, "error"))
            for _ in range(60):
                if told.done():
                    break
                await socket.send(speech())
            assert (await told)["error"]["code"] == "insufficient_quota"

    asyncio.run(run())
    second = 17 * 100_000 + 5 * 200_000
    assert happens(lambda: len(realtime.got) - got > 10) and len(realtime.got) - got < 100_000_000 // second
    assert settled(user).used == 0, "nothing was committed"


@pytest.mark.parametrize("reports", [True, False])
def test_a_transcription_is_charged_although_the_client_left_before_it(
    live: Portal, server: Server, realtime: Obedient, model: str, reports: bool
) -> None:
    """One without usage is estimated by the length of the audio and the text."""
    heard_priced(server)
    user = live.user(balance=10**12)
    token = live.token(user)
    server.catch_up()
    report = {"usage": WRITTEN} if reports else {}

    async def run() -> None:
        async with connect(url(server, model), additional_headers=bearer(token)) as socket:
            await until(socket, "session.created")
            await socket.send(speech(20))
            await socket.send(json.dumps({"type": "input_audio_buffer.commit", "after": 0.5, **report}))
            await until(socket, "input_audio_buffer.committed")

    asyncio.run(run())
    record = happens(lambda: next(iter(transcriptions_of(user)), None))
    assert record.usage_source == ("reported" if reports else "estimated")
    assert (record.input_tokens, record.output_tokens > 0) == (300 if reports else 200, True)
    assert settled(user).used == record.cost > 0


def test_a_response_is_charged_although_its_user_revoked_the_token(live: Portal, server: Server, model: str) -> None:
    from relay.models import Token
    from relay.tokens.lifecycle import revoke_token

    user = live.user(balance=10**12)
    token = live.token(user)
    server.catch_up()
    usage = {"input_tokens": 20, "output_tokens": 700, "total_tokens": 720}

    async def run() -> None:
        async with connect(url(server, model), additional_headers=bearer(token)) as socket:
            await until(socket, "session.created")
            await socket.send(json.dumps({"type": "talk", "id": "a", "words": 0, "cancelled": usage}))
            await until(socket, "response.output_text.done")
            await asyncio.to_thread(lambda: revoke_token(Token.objects.get(user=user), actor=user))
            assert "owner of its token" in (await until(socket, "error"))["error"]["message"]

    asyncio.run(run())
    (row,) = records(model, 1)
    assert (row.end_reason, row.error_code, row.usage_source) == ("client_gone", "request_ended", "reported")
    assert row.cost == 20 * 4_000 + 700 * 24_000 == settled(user).used


def test_the_token_may_come_as_a_sub_protocol(live: Portal, server: Server, model: str) -> None:
    token = live.token()
    server.catch_up()

    async def run() -> None:
        protocols = [websockets.Subprotocol("realtime"), websockets.Subprotocol(f"openai-insecure-api-key.{token}")]
        async with connect(url(server, model), subprotocols=protocols) as socket:
            assert socket.subprotocol == "realtime"
            await until(socket, "session.created")

    asyncio.run(run())


def test_frames_of_sixteen_mebibytes(live: Portal, server: Server, model: str) -> None:
    token = live.token()
    server.catch_up()
    size = 16 * 1024 * 1024

    async def run() -> None:
        async with connect(
            url(server, model), additional_headers=bearer(token), max_size=20 << 20, compression=None
        ) as socket:
            await until(socket, "session.created")
            pad = "x" * (size - len('{"type":"echo","pad":""}'))
            await socket.send('{"type":"echo","pad":"%s"}' % pad[:-100])
            assert len((await until(socket, "echoed"))["pad"]) == len(pad) - 100
            await socket.send(b"b" * size)
            assert await socket.recv() == b"b" * size

    asyncio.run(run())


def test_a_client_that_does_not_read_fills_no_memory(live: Portal, server: Server, model: str) -> None:
    from tests.support.server import _rss

    token = live.token()
    server.catch_up()
    before = _rss(server.process.pid)

    async def run() -> None:
        async with connect(
            url(server, model), additional_headers=bearer(token), max_size=None, max_queue=2, compression=None
        ) as socket:
            await until(socket, "session.created")
            await socket.send('{"type":"flood"}')
            await asyncio.sleep(1.5)
            assert _rss(server.process.pid) - before < 25 * 1024 * 1024
            for number in range(400):
                assert json.loads(await asyncio.wait_for(socket.recv(), 100))["number"] == number

    asyncio.run(run())


@pytest.mark.parametrize(
    ("query", "token", "status", "code"),
    [
        ("m", "", 401, "invalid_api_key"),
        ("m", "sk-wrong", 401, "invalid_api_key"),
        ("no-such", "good", 404, "model_not_found"),
        ("", "good", 400, "missing_required_parameter"),
        ("chat", "good", 400, "unsupported_endpoint"),
    ],
)
def test_refused_handshakes_are_answered_like_refused_requests(
    live: Portal, server: Server, model: str, query: str, token: str, status: int, code: str
) -> None:
    chat = live.model(provider="llamacpp")
    secret = live.token() if token == "good" else token
    server.catch_up()

    async def run() -> None:
        with pytest.raises(websockets.InvalidStatus) as caught:
            async with connect(
                url(server, {"m": model, "chat": chat}.get(query, query)),
                additional_headers=bearer(secret) if secret else {},
            ):
                pass
        answer = caught.value.response
        assert (
            answer.status_code == status
            and json.loads(bytes(answer.body or b""))["error"]["code"] == code
            and answer.headers["x-request-id"]
        )

    asyncio.run(run())


@pytest.mark.parametrize(
    ("event", "param"),
    [
        ('{"type":"session.update","session":{"Model":"dear"}}', "model"),
        ('{"type":"response.create","Response":{"model":"dear"}}', "response"),
        ('{"type":"session.update","session":{"audio":{"input":{"Transcription":{"model":"dear"}}}}}', "transcription"),
    ],
)
def test_a_member_of_an_event_in_other_letters_is_refused(event: str, param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        client_event(event)
    assert (caught.value.param, caught.value.code) == (param, "invalid_json")


def test_when_nothing_is_left_the_connection_ends_with_an_error(
    live: Portal, server: Server, realtime: Obedient, model: str
) -> None:
    user = live.user(balance=4096 * 64_000 // 3)  # enough to begin, and for a few responses
    token = live.token(user)
    server.catch_up()

    async def run() -> None:
        async with connect(url(server, model), additional_headers=bearer(token)) as socket:
            await until(socket, "session.created")
            try:
                for _ in range(500):
                    await socket.send('{"type":"response.create"}')
                    while json.loads(await asyncio.wait_for(socket.recv(), 100))["type"] != "response.done":
                        pass
            except websockets.ConnectionClosed as closed:
                assert (
                    closed.rcvd is not None and closed.rcvd.code == 4429 and closed.rcvd.reason == "insufficient_quota"
                )
                return
            raise AssertionError("it never ended")

    asyncio.run(run())
    from relay.models import LedgerAccount

    assert LedgerAccount.objects.get(user=user, kind="wallet").balance >= 0


@pytest.mark.parametrize("reports", [True, False])
def test_a_response_is_charged_although_the_client_left_before_its_end(
    live: Portal, server: Server, realtime: Obedient, model: str, reports: bool
) -> None:
    """What the upstream is making is cancelled, and reports its usage; one that does not is estimated."""
    user = live.user(balance=10**12)
    token = live.token(user)
    server.catch_up()
    usage = {"input_tokens": 20, "output_tokens": 700, "total_tokens": 720}

    async def run() -> None:
        async with connect(url(server, model), additional_headers=bearer(token)) as socket:
            await until(socket, "session.created")
            await socket.send(
                json.dumps({"type": "talk", "id": "a", "words": 5, "cancelled": usage if reports else None})
            )
            await until(socket, "response.output_text.done")

    asyncio.run(run())
    (row,) = records(model, 1)
    assert (row.end_reason, row.usage_source) == ("client_gone", "reported" if reports else "estimated")
    if reports:
        assert row.cost == 20 * 4_000 + 700 * 24_000
    else:
        assert row.output_tokens == 625 and row.cost == row.input_tokens * 4_000 + 625 * 24_000
    assert settled(user).used == row.cost


def test_no_session_uses_much_more_than_is_held_for_it(live: Portal, server: Server, model: str) -> None:
    """Three at once whose upstream goes on far beyond what there is: held as it grows, and ended."""
    user = live.user(balance=1_040_000_000)  # for some 40,000 tokens of text
    token = live.token(user)
    server.catch_up()

    async def run() -> None:
        async with connect(url(server, model), additional_headers=bearer(token)) as socket:
            await until(socket, "session.created")
            await socket.send(json.dumps({"type": "talk", "id": "a", "words": 800}))
            assert (await until(socket, "error"))["error"]["code"] == "insufficient_quota"
            with pytest.raises(websockets.ConnectionClosed):
                await asyncio.wait_for(socket.recv(), 60)

    async def all_at_once() -> None:
        await asyncio.gather(*(run() for _ in range(3)))

    asyncio.run(all_at_once())
    from relay.models import LedgerEntry

    found = settled(user)
    entries = LedgerEntry.objects.filter(user=user, kind="shortfall")
    assert found.balance >= 0 and sum(entry.amount for entry in entries) < 3 * 200 * 64_000, "a frame each at most"
    assert sum(row.cost for row in records(model, 3)) > 300_000_000


def test_each_of_several_responses_is_held_and_charged_and_none_twice(live: Portal, server: Server, model: str) -> None:
    user = live.user(balance=10**12)
    token = live.token(user)
    server.catch_up()
    usage = {"input_tokens": 20, "output_tokens": 500, "total_tokens": 520}

    async def run() -> None:
        async with connect(url(server, model), additional_headers=bearer(token)) as socket:
            await until(socket, "session.created")
            for name in ("a", "b", "c"):
                await socket.send(json.dumps({"type": "talk", "id": name, "words": 4}))
            for _ in range(3):
                await until(socket, "response.output_text.done")
            held = (await asyncio.to_thread(wallet, user)).reserved
            assert held >= 3 * (2000 * 4_000 + 4096 * 64_000)
            for name in ("c", "a", "b"):
                await socket.send(json.dumps({"type": "talk", "id": name, "words": 0, "done": usage}))
                await until(socket, "response.done")
            await socket.send('{"type":"response.create","twice":true}')
            await until(socket, "response.done")
            await until(socket, "response.done")

    asyncio.run(run())
    costs = sorted(row.cost for row in records(model, 5))
    assert costs[0] == 0 and costs[-3:] == [20 * 4_000 + 500 * 24_000] * 3 and costs.count(COST) == 1
    assert settled(user).used == sum(costs)


def test_input_that_a_session_cannot_have_had_is_estimated(live: Portal, server: Server, model: str) -> None:
    user = live.user(balance=10**12)
    token = live.token(user)
    server.catch_up()
    usage = {"input_tokens": 1_000_000, "output_tokens": 1_000_000, "total_tokens": 2_000_000}

    async def run() -> None:
        async with connect(url(server, model), additional_headers=bearer(token)) as socket:
            await until(socket, "session.created")
            await socket.send(json.dumps({"type": "talk", "id": "a", "words": 4, "done": usage}))
            await until(socket, "response.done")

    asyncio.run(run())
    row = records(model, 1)[0]
    assert (row.usage_source, row.output_tokens) == ("estimated", 500)
    assert 10 < row.input_tokens < 60, "what was said, and not what is held for it"


def test_a_revoked_token_ends_the_connection(live: Portal, server: Server, model: str) -> None:
    from relay.models import Token
    from relay.models.token import digest_of

    secret = live.token()
    server.catch_up()
    token = Token.objects.get(digest=digest_of(secret))

    def revoke() -> None:
        token.enabled = False
        token.save()

    async def run() -> None:
        async with connect(url(server, model), additional_headers=bearer(secret)) as socket:
            await until(socket, "session.created")
            await asyncio.to_thread(revoke)
            event = await until(socket, "error")
            assert event["error"]["code"] == "request_ended"
            with pytest.raises(websockets.ConnectionClosed):
                await asyncio.wait_for(socket.recv(), 5)

    asyncio.run(run())
    record = records(model, 1)[-1]
    assert (record.end_reason, record.error_code, record.cost) == ("client_gone", "request_ended", 0)


def test_a_limit_of_requests_counts_responses(live: Portal, server: Server, realtime: Obedient) -> None:
    name = live.model(None, base_url=realtime.base_url, max_rpm=3, upstream_name="gpt-realtime")
    token = live.token()
    server.catch_up()

    async def run() -> None:
        async with connect(url(server, name), additional_headers=bearer(token)) as socket:
            await until(socket, "session.created")
            for _ in range(3):
                await socket.send('{"type":"response.create"}')
            assert (await until(socket, "error"))["error"]["code"] == "rate_limit_exceeded"

    asyncio.run(run())


def test_the_upstream_is_closed_when_the_client_leaves(
    live: Portal, server: Server, realtime: Obedient, model: str
) -> None:
    token = live.token()
    server.catch_up()

    async def run() -> None:
        socket = await connect(url(server, model), additional_headers=bearer(token))
        await until(socket, "session.created")
        socket.transport.abort()

    asyncio.run(run())
    happens(realtime.is_closed)


def test_the_upstreams_close_is_passed_on(live: Portal, server: Server, model: str) -> None:
    token = live.token()
    server.catch_up()

    async def run() -> None:
        async with connect(url(server, model), additional_headers=bearer(token)) as socket:
            await until(socket, "session.created")
            await socket.send('{"type":"leave"}')
            assert (await until(socket, "error"))["error"]["code"] == "upstream_error"
            with pytest.raises(websockets.ConnectionClosed) as caught:
                await asyncio.wait_for(socket.recv(), 5)
            assert caught.value.rcvd is not None
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1011, "bye")

    asyncio.run(run())


def test_client_secrets_open_a_session_and_nothing_else(
    live: Portal, server: Server, realtime: Obedient, model: str
) -> None:
    from relay.models import Token
    from relay.models.token import digest_of

    token = live.token()
    made = server.post(
        token,
        {"session": {"type": "realtime", "model": model, "instructions": "be brief"}},
        path="/v1/realtime/client_secrets",
    ).json()
    assert (
        made["value"].startswith("ek_")
        and token not in json.dumps(made)
        and 500 < made["expires_at"] - time.time() <= 600
    )
    assert server.get(made["value"], "/v1/models").status_code == 401

    async def run(secret: str) -> None:
        async with connect(
            url(server),
            subprotocols=[
                websockets.Subprotocol("realtime"),
                websockets.Subprotocol(f"openai-insecure-api-key.{secret}"),
            ],
        ) as socket:
            await until(socket, "session.created")

    asyncio.run(run(made["value"]))
    happens(lambda: realtime.got and realtime.got[-1].get("type") == "session.update")
    assert realtime.got[-1]["session"]["instructions"] == "be brief"
    older = server.post(token, {"model": model, "voice": "alloy"}, path="/v1/realtime/sessions").json()
    assert older["model"] == model and older["client_secret"]["value"].startswith("ek_")
    row = Token.objects.get(digest=digest_of(token))
    row.allowed_ips = ["10.0.0.0/8"]
    row.save()
    server.catch_up()
    with pytest.raises(websockets.InvalidStatus) as caught:
        asyncio.run(run(made["value"]))
    assert caught.value.response.status_code == 403
    row.allowed_ips = []
    row.enabled = False
    row.save()
    server.catch_up()
    for secret in (made["value"], made["value"][:-4] + "AAAA", "ek_x"):
        with pytest.raises(websockets.InvalidStatus):
            asyncio.run(run(secret))
    answer = server.post(live.token(), {"expires_after": {"seconds": 5}}, path="/v1/realtime/client_secrets")
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("event", "code", "param"),
    [
        ('{"type":"echo","pad":1,"type":"session.update"}', "invalid_json", "type"),
        ('{"type":"session.update","session":{"a":{"b":1,"\\u0062":2}}}', "invalid_json", "session.a.b"),
        ('{"type":"echo","pad":NaN}', "invalid_json", None),
        ("[1]", "invalid_json", None),
        ('{"type":"session.update","session":{"model":"closed"}}', "model_not_allowed", "session.model"),
        ('{"type":"response.create","response":{"model":"closed"}}', "model_not_allowed", "response.model"),
    ],
)
def test_an_event_that_could_be_read_differently_is_refused_and_the_session_goes_on(
    live: Portal, server: Server, realtime: Obedient, model: str, event: str, code: str, param: str | None
) -> None:
    token = live.token()
    server.catch_up()

    async def run() -> None:
        async with connect(url(server, model), additional_headers=bearer(token)) as socket:
            await until(socket, "session.created")
            before = len(realtime.got)
            await socket.send(event)
            error = (await until(socket, "error"))["error"]
            assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
            await socket.send('{"type":"echo","pad":"x"}')
            await until(socket, "echoed")
            assert [got["type"] for got in realtime.got[before:]] == ["echo"]

    asyncio.run(run())


@pytest.mark.parametrize(("opened", "named"), [("{m}", "{m}"), ("also-{m}", "also-{m}"), ("also-{m}", "openai/{m}")])
def test_the_sessions_own_model_is_named_as_the_upstream_knows_it(
    live: Portal, server: Server, realtime: Obedient, model: str, opened: str, named: str
) -> None:
    """By any of its names, of which it is the same model."""
    from relay.models import Model, ModelAlias

    token, other = live.token(), live.model()
    ModelAlias.objects.create(model=Model.objects.get(name=model), name=f"also-{model}")
    ModelAlias.objects.create(model=Model.objects.get(name=other), name=f"also-{other}")
    server.catch_up()

    def update(name: str) -> str:
        return json.dumps({"type": "session.update", "session": {"model": name, "voice": "alloy"}})

    async def run() -> None:
        async with connect(url(server, opened.format(m=model)), additional_headers=bearer(token)) as socket:
            await until(socket, "session.created")
            await socket.send(update(f"also-{other}"))
            assert (await until(socket, "error"))["error"]["code"] == "model_not_allowed"
            await socket.send(update(named.format(m=model)))

    asyncio.run(run())
    happens(lambda: realtime.got and realtime.got[-1].get("type") == "session.update")
    assert realtime.got[-1]["session"] == {"model": "gpt-realtime", "voice": "alloy"}
    assert all(record.model == model for record in records(model, 1))


def test_azures_address_and_header_open_a_session(live: Portal, server: Server, model: str) -> None:
    token = live.token()
    server.catch_up()

    async def run(address: str) -> None:
        async with connect(address, additional_headers={"api-key": token}) as socket:
            await until(socket, "session.created")

    azure = f"ws://127.0.0.1:{server.port}/openai"
    asyncio.run(run(f"{azure}/realtime?api-version=2025-04-01-preview&deployment={model}"))
    asyncio.run(run(f"{azure}/v1/realtime?model={model}"))
    with pytest.raises(websockets.InvalidStatus) as caught:
        asyncio.run(run(f"{azure}/realtime?deployment=closed&deployment={model}"))
    assert caught.value.response.status_code == 400
