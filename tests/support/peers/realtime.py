"""A realtime upstream on a real port, whose behaviour goes by the model that it is asked for, and its clients."""

from __future__ import annotations

import asyncio
import json
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import websockets
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, serve

CREATED = {
    "type": "session.created",
    "event_id": "event_1",
    "session": {"type": "realtime", "object": "realtime.session"},
}


class Call:
    """One connection to the upstream."""

    def __init__(self, socket: ServerConnection, model: str, intent: str, key: str) -> None:
        self.socket, self.model, self.intent, self.key = socket, model, intent, key
        self.got: list[dict[str, Any]] = []

    async def send(self, event: dict[str, Any]) -> None:
        await self.socket.send(json.dumps(event))

    async def say(self, kind: str, **more: Any) -> None:
        await self.send({"type": kind, **more})

    async def receive(self) -> dict[str, Any]:
        event: dict[str, Any] = json.loads(await self.socket.recv())
        self.got.append(event)
        return event

    async def until(self, kind: str) -> dict[str, Any]:
        while (event := await self.receive())["type"] != kind:
            pass
        return event

    def cut(self) -> None:
        """Abort the connection, without a close frame."""
        self.socket.transport.abort()


Script = Callable[[Call], Awaitable[None]]


async def wait_until_closed(call: Call) -> None:
    """What every script does at its end: read what the client sends until it leaves."""
    while True:
        await call.receive()


class RealtimeUpstream:
    """Scripts by the name of the model in the address; empty: a transcription session, which names it later."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self._started = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True).start()
        assert self._started.wait(10)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def _run(self) -> None:
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        protocols = [websockets.Subprotocol("realtime")]
        async with serve(self._handle, "127.0.0.1", 0, max_size=20 << 20, subprotocols=protocols) as server:
            self.port = server.sockets[0].getsockname()[1]
            self._started.set()
            await self._stop.wait()

    def count(self, model: str) -> int:
        return len(self.calls[model])

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)

    async def _handle(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        query = parse_qs(urlsplit(socket.request.path).query)
        model, intent = query.get("model", [""])[0], query.get("intent", [""])[0]
        call = Call(socket, model, intent, socket.request.headers.get("authorization", ""))
        self.calls[model].append(call)
        try:
            await self.scripts[model](call)
            await wait_until_closed(call)
        except websockets.ConnectionClosed:
            pass


def secrets(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def event_of(socket: ClientConnection, kind: str) -> dict[str, Any]:
    """The next event of a type."""
    while True:
        event: dict[str, Any] = json.loads(await asyncio.wait_for(socket.recv(), 20))
        if event["type"] == kind:
            return event


async def closed(socket: ClientConnection) -> tuple[int, str]:
    """The code and reason with which the portal closes; events before that are read."""
    try:
        while True:
            await asyncio.wait_for(socket.recv(), 20)
    except websockets.ConnectionClosed as end:
        return (end.rcvd.code, end.rcvd.reason) if end.rcvd is not None else (1006, "")
