"""Realtime sessions when the portal stops."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from tests.support.asserts import until
from tests.support.peers.realtime import CREATED, Call, RealtimeUpstream, closed, event_of, secrets
from tests.support.portal import Portal
from tests.support.server import Server, serving

DELTA = {"type": "response.output_text.delta", "response_id": "r", "delta": "word " * 100}
DONE = {"id": "r", "status": "completed", "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}}


@pytest.mark.shared
def test_a_stop_lets_responses_end_and_cuts_the_rest_with_an_error_event(live: Portal, tmp_path: Path) -> None:
    from relay.models import UsageRecord

    upstream, go = RealtimeUpstream(), threading.Event()

    async def answer(call: Call) -> None:
        await call.send(CREATED)
        await call.until("response.create")
        await call.send({"type": "response.created", "response": {"id": "r"}})
        await call.send(DELTA)
        if call.model.startswith("ends"):
            await asyncio.to_thread(go.wait, 20)
            await call.send({"type": "response.done", "response": DONE})

    price = {"input": 4, "output": 16}
    channel = live.channel(upstream.base_url)
    models = {name: live.model(None, channels=[channel], upstream_name=name, price=price) for name in ("ends", "lasts")}
    upstream.scripts = dict.fromkeys(models, answer)
    token = live.token()
    told: dict[str, Any] = {}

    async def begin(own: Server, name: str, asks: bool = True) -> ClientConnection:
        address = f"ws://127.0.0.1:{own.port}/v1/realtime?model={models[name]}"
        socket = await connect(address, additional_headers=secrets(token))
        await event_of(socket, "session.created")
        if asks:
            await socket.send('{"type":"response.create"}')
            await event_of(socket, "response.output_text.delta")
        return socket

    async def run(own: Server) -> None:
        ends, lasts, idle = await begin(own, "ends"), await begin(own, "lasts"), await begin(own, "ends", asks=False)
        os.kill(own.process.pid, signal.SIGTERM)
        told["idle"] = (await event_of(idle, "error"))["error"], await closed(idle)
        await ends.send('{"type":"response.create"}')
        told["refused"] = (await event_of(ends, "error"))["error"]
        go.set()
        assert await event_of(ends, "response.done")
        told["ends"] = (await event_of(ends, "error"))["error"], await closed(ends)
        told["lasts"] = (await event_of(lasts, "error"))["error"], await closed(lasts)

    with serving(tmp_path / "log", env={"AIRELAYS_SHUTDOWN_SECONDS": "3"}) as own:
        own.catch_up()
        asyncio.run(run(own))
        assert own.process.wait(60) == 0
    upstream.stop()
    for name in ("idle", "ends", "lasts"):
        error, (code, _) = told[name]
        assert (error["code"], code) == ("relay_unavailable", 1012) and "Connect again" in error["message"]
    assert told["refused"]["code"] == "relay_unavailable"
    rows = until(lambda: len(found := list(UsageRecord.objects.filter(model__in=models.values()))) >= 3 and found)
    ended = sorted((row.end_reason, row.usage_source, row.cost > 0) for row in rows)
    assert ("completed", "reported", True) in ended and ("shutdown", "estimated", True) in ended
    assert "Traceback" not in (tmp_path / "log").read_text()
