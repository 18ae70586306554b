"""Realtime sessions that end while something is under way."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction
from websockets.asyncio.client import connect

from relay.billing.ledger.sql import LedgerSql
from relay.models import Model
from tests.support.money import settled
from tests.support.peers.realtime import CREATED, Call, RealtimeUpstream, closed, event_of, secrets
from tests.support.peers.spoken import Realtime
from tests.support.portal import Portal
from tests.support.server import Server

pytestmark = pytest.mark.shared
USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
# More than a worker holds ahead, so that the database is asked.
LONG = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x" * 1_000_000}]}


@contextmanager
def wallet_locked(user: Any) -> Iterator[None]:
    """Nothing is held in this wallet meanwhile, and nothing charged to it."""
    locked, over = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            LedgerSql().lock(user.pk)
            locked.set()
            over.wait()
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait()
    try:
        yield
    finally:
        over.set()
        holder.join()


def test_nothing_is_kept_of_what_was_to_be_held_for_a_response(live: Portal, server: Server) -> None:
    """The session ends while the money of the next response is being held."""
    upstream = RealtimeUpstream()

    async def script(call: Call) -> None:
        await call.send(CREATED)
        await call.until("response.create")
        await call.say("response.created", response={"id": "r", "status": "in_progress"})
        await call.say("response.done", response={"id": "r", "status": "completed", "usage": USAGE})
        await call.until("conversation.item.create")
        await asyncio.sleep(0.5)  # in which the response is asked for; one that is asked for later finds the end
        call.cut()

    name = live.name("spoken")
    upstream.scripts[name] = script
    channel = live.channel(upstream.base_url)
    model = live.model(None, channels=[channel], upstream_name=name, price={"input": 32, "output": 64})
    user = live.user(balance=10**12)
    token = live.token(user)
    server.catch_up()
    address = f"ws://127.0.0.1:{server.port}/v1/realtime?model={model}"

    async def run() -> tuple[int, str]:
        async with connect(address, additional_headers=secrets(token)) as socket:
            await event_of(socket, "session.created")
            await socket.send('{"type":"response.create"}')
            await event_of(socket, "response.done")
            with wallet_locked(user):
                await socket.send(json.dumps({"type": "conversation.item.create", "item": LONG}))
                await socket.send('{"type":"response.create"}')
                return await closed(socket)

    assert asyncio.run(run())[0] == 1011
    assert settled(user).used == 10 * 32_000 + 5 * 64_000
    upstream.stop()


def test_nothing_stays_held_when_the_client_leaves_while_the_upstream_is_being_closed(
    live: Portal, server: Server
) -> None:
    """The portal ends the session, since its model is closed, and the upstream does not answer the close frame."""
    upstream = RealtimeUpstream()

    async def script(call: Call) -> None:
        await call.send(CREATED)
        await call.say("session.updated", session=(await call.until("session.update"))["session"])
        await call.until("response.create")
        await call.say("response.created", response={"id": "r", "status": "in_progress"})
        await call.until("input_audio_buffer.clear")
        call.socket.transport.pause_reading()
        await call.say("response.done", response={"id": "r", "status": "completed", "usage": USAGE})
        await call.socket.wait_closed()

    name = live.name("spoken")
    upstream.scripts[name] = script
    channel = live.channel(upstream.base_url)
    model = live.model(None, channels=[channel], upstream_name=name, price={"input": 32, "output": 64})
    user = live.user(balance=10**12)
    token = live.token(user)
    heard = live.model(None, channels=[channel], price={"input": 1, "output": 1})
    session = {"type": "realtime", "audio": {"input": {"transcription": {"model": heard}, "turn_detection": None}}}
    server.catch_up()
    address = f"ws://127.0.0.1:{server.port}/v1/realtime?model={model}"

    def close_model() -> None:
        row = Model.objects.get(name=model)
        row.enabled = False
        row.save()
        server.catch_up()

    async def run() -> None:
        async with connect(address, additional_headers=secrets(token)) as socket:
            await event_of(socket, "session.created")
            await socket.send(json.dumps({"type": "session.update", "session": session}))
            await event_of(socket, "session.updated")
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 64_000}))
            await socket.send('{"type":"response.create"}')
            await event_of(socket, "response.created")
            await asyncio.to_thread(close_model)
            await socket.send('{"type":"input_audio_buffer.clear"}')
            assert (await event_of(socket, "error"))["error"]["code"] == "model_not_allowed"
            socket.transport.abort()

    asyncio.run(run())
    assert settled(user).used == 10 * 32_000 + 5 * 64_000
    upstream.stop()


@pytest.mark.parametrize("code", [1000, 1001, 1011])
def test_a_transcription_that_never_comes_is_not_charged(spoken: Realtime, code: int) -> None:
    """However the upstream closes. The client is told, with the upstream's own code."""

    async def script(call: Call) -> None:
        await call.send(CREATED)
        await call.until("input_audio_buffer.commit")
        await call.say("input_audio_buffer.committed", item_id="i")
        await call.socket.close(code, "bye")

    model, user = spoken.model(script), spoken.live.user(balance=10**12)
    token, dear = spoken.live.token(user), spoken.transcriber(model, per_second="0.01")
    transcription = {"transcription": {"model": dear}, "turn_detection": None}

    async def run() -> tuple[str, tuple[int, str]]:
        async with spoken.connect(model, token) as socket:
            await event_of(socket, "session.created")
            await socket.send(json.dumps({"type": "session.update", "session": {"audio": {"input": transcription}}}))
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": "A" * 640_000}))
            await socket.send('{"type":"input_audio_buffer.commit"}')
            return (await event_of(socket, "error"))["error"]["code"], await closed(socket)

    told, (closed_with, _) = asyncio.run(run())
    assert closed_with == code and told == ("upstream_error" if code == 1011 else "upstream_truncated")
    (row,) = spoken.records(model)
    assert (row.end_reason, settled(user).used) == ("upstream_error" if code == 1011 else "truncated", 0)
