"""Realtime with two workers: secrets, money and limits are shared; one that stops or dies leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect

from tests.support.asserts import until
from tests.support.money import settled
from tests.support.peers.calling import COST, Calls, begun, delta, done, listen
from tests.support.peers.obedient import NAME, Obedient
from tests.support.peers.realtime import CREATED, Call, RealtimeUpstream, closed, event_of, secrets
from tests.support.portal import Portal
from tests.support.server import Server, serving

pytestmark = pytest.mark.shared

PRICE = {"input": 4, "output": 24, "audio_input": 32, "audio_output": 64}


@pytest.fixture(scope="module")
def second(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A second worker on the database of the first."""
    with serving(tmp_path_factory.mktemp("second") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def obedient() -> Iterator[Obedient]:
    running = Obedient()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def taking() -> Iterator[RealtimeUpstream]:
    running = RealtimeUpstream()
    yield running
    running.stop()


@pytest.fixture
def calls(live: Portal, server: Server, taking: RealtimeUpstream) -> Calls:
    return Calls(live, server, taking)


def session(server: Server, secret: str, model: str = "") -> Any:
    server.catch_up()
    query = f"?model={model}" if model else ""
    return connect(f"ws://127.0.0.1:{server.port}/v1/realtime{query}", additional_headers=secrets(secret))


def model_of(live: Portal, obedient: Obedient) -> str:
    return live.model(None, base_url=obedient.base_url, price=PRICE, upstream_name=NAME)


# -- sessions ----------------------------------------------------------------------------------------------------------


def test_a_secret_made_at_one_worker_opens_a_session_at_the_other(
    live: Portal, server: Server, second: Server, obedient: Obedient
) -> None:
    from relay.models import UsageRecord

    model, user = model_of(live, obedient), live.user(balance=10**12)
    body = {"session": {"type": "realtime", "model": model, "instructions": "be brief"}}
    made = server.post(live.token(user), body, path="/v1/realtime/client_secrets").json()

    async def run() -> None:
        async with session(second, made["value"]) as socket:
            await event_of(socket, "session.created")
            await socket.send('{"type":"response.create"}')
            await event_of(socket, "response.done")

    asyncio.run(run())
    record = until(lambda: UsageRecord.objects.filter(model=model, end_reason="completed").first())
    assert settled(user).used == record.cost > 0
    assert obedient.got[-2]["session"]["instructions"] == "be brief"


def test_sessions_at_both_workers_do_not_spend_more_than_the_wallet_has(
    live: Portal, server: Server, second: Server, obedient: Obedient
) -> None:
    from relay.models import LedgerEntry, UsageRecord

    model, user = model_of(live, obedient), live.user(balance=1_040_000_000)  # for some 40,000 tokens of text
    token = live.token(user)

    async def run(where: Server, opened: asyncio.Barrier) -> None:
        async with session(where, token, model) as socket:
            await event_of(socket, "session.created")
            await opened.wait()
            await socket.send(json.dumps({"type": "talk", "id": "a", "words": 800}))
            assert (await event_of(socket, "error"))["error"]["code"] == "insufficient_quota"
            await closed(socket)

    async def both() -> None:
        opened = asyncio.Barrier(2)
        await asyncio.gather(run(server, opened), run(second, opened))

    asyncio.run(both())
    found = settled(user)
    entries = LedgerEntry.objects.filter(user=user, kind="shortfall")
    assert found.balance >= 0 and sum(entry.amount for entry in entries) < 2 * 200 * 64_000, "a frame each at most"
    assert sum(row.cost for row in UsageRecord.objects.filter(user=user)) > 300_000_000


@pytest.mark.skipif(not os.environ.get("AIRELAYS_REDIS_URL"), reason="without Redis, each worker counts for itself")
def test_sessions_at_once_are_limited_across_workers(
    live: Portal, server: Server, second: Server, obedient: Obedient
) -> None:
    from relay.models import Token

    model, user = model_of(live, obedient), live.user()
    token = live.token(user)
    Token.objects.filter(user=user).update(max_concurrency=1)
    live.token(user)  # announces that

    async def opens(where: Server) -> int:
        try:
            async with session(where, token, model) as socket:
                await event_of(socket, "session.created")
                return 101
        except websockets.InvalidStatus as refused:
            return refused.response.status_code

    async def run() -> None:
        async with session(server, token, model) as socket:
            await event_of(socket, "session.created")
            assert await opens(second) == 429

    asyncio.run(run())
    until(lambda: asyncio.run(opens(second)) == 101)


# -- calls -------------------------------------------------------------------------------------------------------------


def test_a_call_made_at_one_worker_is_joined_and_hung_up_at_the_other(calls: Calls, second: Server) -> None:
    model, token = calls.model(listen), calls.live.token()
    location = calls.make(token, model).headers["location"]
    second.catch_up()

    async def run() -> None:
        address = f"ws://127.0.0.1:{second.port}/v1/realtime?call_id={location.rpartition('/')[2]}"
        async with connect(address, additional_headers=secrets(token)) as socket:
            await asyncio.to_thread(until, lambda: calls.taken(model).sidebands[1:])
            await asyncio.to_thread(calls.say, model, begun("r"), to=1)
            await event_of(socket, "response.created")
            answer = await asyncio.to_thread(second.post, token, {}, f"{location}/hangup")
            assert answer.status_code == 200
            assert (await closed(socket))[0] == 1000

    asyncio.run(run())
    assert calls.taken(model).over
    calls.records(model)


def test_a_worker_that_stops_lets_its_calls_end_their_responses_and_hangs_them_up(calls: Calls, tmp_path: Any) -> None:
    go = threading.Event()

    async def script(call: Call) -> None:
        await call.send(CREATED)
        await call.send(begun("r"))
        await call.send(delta("r"))
        await asyncio.to_thread(go.wait, 60)
        await call.send(done("r"))

    ends, idle, stays = calls.model(script), calls.model(listen), calls.model(listen)
    user = calls.live.user(balance=10**12)
    token = calls.live.token(user)
    with serving(tmp_path / "log", env={"AIRELAYS_SHUTDOWN_SECONDS": "20"}) as own:
        for model, where in ((ends, own), (idle, own), (stays, calls.server)):
            assert calls.make(token, model, where).status_code == 201
        os.kill(own.process.pid, signal.SIGTERM)
        until(lambda: calls.taken(idle).over)
        assert not calls.taken(ends).over
        go.set()
        until(lambda: calls.taken(ends).over)
        assert own.process.wait(60) == 0
    assert not calls.taken(stays).over
    calls.upstream.hang_up(calls.taken(stays))
    record = next(one for one in calls.records(ends) if one.cost)
    assert (record.end_reason, record.usage_source, record.cost) == ("completed", "reported", COST)
    assert settled(user).used == COST
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("rejoins", [True, False])
def test_a_call_whose_worker_is_killed_is_charged_and_hung_up_by_another(
    calls: Calls, tmp_path: Any, rejoins: bool
) -> None:
    """What it was saying is reported when it is cancelled; estimated where the call cannot be joined any more."""
    from relay.models import RealtimeCall

    usage = {"input_tokens": 3000, "output_tokens": 700, "total_tokens": 3700}
    runs: list[int] = []

    async def script(call: Call) -> None:
        runs.append(1)
        if len(runs) == 1:
            await call.send(CREATED)
            await call.send(begun("r"))
            await call.send(delta("r", 400))
        else:
            assert (await call.until("response.cancel"))["response_id"] == "r"
            await call.send(done("r", usage, "cancelled"))

    model, user = calls.model(script), calls.live.user(balance=10**12)
    token = calls.live.token(user)
    with serving(tmp_path / "log") as own:
        location = calls.make(token, model, own).headers["location"]
        rows = RealtimeCall.objects.filter(call_id=location.rpartition("/")[2])
        until(lambda: rows.filter(output_tokens__gt=0).exists())
        if not rejoins:
            calls.upstream.joins[calls.upstream_name(model)] = 100
        own.kill()
    until(lambda: calls.taken(model).over)
    until(lambda: not rows.exists())
    record = next(one for one in calls.records(model) if one.cost)
    tokens = (3000, 700) if rejoins else (record.input_tokens, 500)
    assert (record.input_tokens, record.output_tokens) == tokens and record.input_tokens > 0
    assert (record.usage_source, record.end_reason) == ("reported" if rejoins else "estimated", "shutdown")
    assert settled(user).used == record.cost == tokens[0] * 4_000 + tokens[1] * 16_000


def test_what_a_killed_worker_has_recorded_is_not_charged_again(calls: Calls) -> None:
    """It may die between the record of a response and its next note of what is running."""
    from datetime import timedelta

    from portal.lib import clock
    from relay.models import RealtimeCall

    model, user = calls.model(listen), calls.live.user(balance=10**12)
    location = calls.make(calls.live.token(user), model).headers["location"]
    calls.say(model, begun("r"), done("r"))
    (record,) = calls.records(model)
    orphan = RealtimeCall.objects.get(call_id=location.rpartition("/")[2])
    orphan.pk, orphan.call_id, orphan.owner = None, f"{orphan.call_id}_", ""
    orphan.running, orphan.input_tokens, orphan.output_tokens = [["r", record.request_id]], 2000, 500
    orphan.lease_until = clock.now() - timedelta(seconds=1)
    orphan.save()
    until(lambda: calls.taken(model).over)
    until(lambda: not RealtimeCall.objects.filter(user=user).exists())
    assert settled(user).used == COST
    assert [one.cost for one in calls.records(model, 2)] == [COST, 0]
