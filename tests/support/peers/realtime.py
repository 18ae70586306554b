"""A realtime upstream on a real port, whose behaviour goes by the model that it is asked for, and its clients.

It takes calls over WebRTC as well, as far as a relay sees them: offers, the websockets that join them, hanging up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import websockets
from python_multipart.multipart import parse_options_header
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

CREATED = {
    "type": "session.created",
    "event_id": "event_1",
    "session": {"type": "realtime", "object": "realtime.session"},
}


ANSWER = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"


class Call:
    """One connection to the upstream."""

    def __init__(self, socket: ServerConnection, model: str, intent: str, key: str, path: str) -> None:
        self.socket, self.model, self.intent, self.key, self.path = socket, model, intent, key, path
        self.got: list[Any] = []

    async def send(self, event: dict[str, Any]) -> None:
        await self.socket.send(json.dumps(event))

    async def say(self, kind: str, **more: Any) -> None:
        await self.send({"type": kind, **more})

    async def receive(self) -> Any:
        """The next event, decoded, or the bytes of a frame of bytes."""
        message = await self.socket.recv()
        event = message if isinstance(message, bytes) else json.loads(message)
        self.got.append(event)
        return event

    async def until(self, kind: str) -> Any:
        """The next event of a type."""
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


@dataclass
class WebRtc:
    """A call that the upstream has taken, and those who have joined it: all are told what happens, and may speak."""

    id: str
    key: str
    offer: str
    session: dict[str, Any]
    sidebands: list[Call] = field(default_factory=list)
    over: bool = False
    heard: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)

    @property
    def model(self) -> str:
        named = self.session.get("model")
        return str(named or self.session["audio"]["input"]["transcription"]["model"])


class _Everybody(Call):
    """All who have joined a call, for its script."""

    def __init__(self, joined: WebRtc) -> None:
        first = joined.sidebands[0]
        super().__init__(cast(ServerConnection, self), joined.model, "", joined.key, first.path)
        self.joined, self.transport = joined, self

    async def send(self, event: dict[str, Any]) -> None:
        for one in [*self.joined.sidebands]:
            with contextlib.suppress(websockets.ConnectionClosed):
                await one.send(event)

    async def receive(self) -> Any:
        event = await self.joined.heard.get()
        if event is None:
            raise websockets.ConnectionClosedOK(None, None)
        self.got.append(event)
        return event

    async def close(self, code: int = 1000, reason: str = "") -> None:
        for one in [*self.joined.sidebands]:
            await one.socket.close(code, reason)

    async def wait_closed(self) -> None:
        while await self.joined.heard.get() is not None:
            pass

    def abort(self) -> None:
        for one in self.joined.sidebands:
            one.cut()


class _Connection(ServerConnection):
    """A websocket, or a connection with one POST on it, which the library does not take."""

    posted: bytes | None = None
    upstream: RealtimeUpstream

    def data_received(self, data: bytes) -> None:
        if self.posted is None and not data.startswith(b"POST"):
            super().data_received(data)
            return
        self.posted = (self.posted or b"") + data
        head, found, body = self.posted.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if found and len(body) >= (int(length[1]) if length else 0):
            answer = self.upstream.post(head.decode("latin-1"), body)
            if answer is None:
                self.transport.abort()
            else:
                self.transport.write(answer)
                self.transport.close()


class RealtimeUpstream:
    """Scripts by the name of the model in the address; empty: a transcription session, which names it later."""

    def __init__(self) -> None:
        self.scripts: dict[str, Script] = {}
        self.taken: dict[str, WebRtc] = {}  # calls by their ids
        self.refused: dict[str, tuple[int, str]] = {}  # how calls of a model are refused: status and message
        self.joins: dict[str, int] = {}  # how many tries to join a call of a model are answered with 404 first
        self.calls: dict[str, list[Call]] = defaultdict(list)
        self._started = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True).start()
        assert self._started.wait(10)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def _run(self) -> None:
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        connection = type("_Connection", (_Connection,), {"upstream": self})
        async with serve(
            self._handle,
            "127.0.0.1",
            0,
            max_size=20 << 20,
            select_subprotocol=_select_protocol,
            create_connection=connection,
            process_request=self._process,
            logger=_quiet,
        ) as server:
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
        joined = self.taken.get(query.get("call_id", [""])[0])
        model = joined.model if joined is not None else model
        call = Call(socket, model, intent, _key_of(socket.request), socket.request.path)
        if joined is not None:
            await self._join(joined, call)
            return
        self.calls[model].append(call)
        try:
            await self.scripts[model](call)
            await wait_until_closed(call)
        except websockets.ConnectionClosed:
            pass

    async def _join(self, joined: WebRtc, call: Call) -> None:
        """The call's script runs while the first who joined it, the portal, is there."""
        joined.sidebands.append(call)
        first = joined.sidebands[0] is call
        if first:
            self.calls[joined.model].append(call)
            joined.heard = asyncio.Queue()
            running = asyncio.ensure_future(self._run_script(joined))
        try:
            while True:
                joined.heard.put_nowait(await call.receive())
        except websockets.ConnectionClosed:
            joined.sidebands.remove(call)
            if first:
                joined.heard.put_nowait(None)
                await running

    async def _run_script(self, joined: WebRtc) -> None:
        everybody = _Everybody(joined)
        with contextlib.suppress(websockets.ConnectionClosed):
            await self.scripts[joined.model](everybody)
            await wait_until_closed(everybody)

    # -- calls over WebRTC ---------------------------------------------------------------------------------------------

    def _process(self, socket: ServerConnection, request: Request) -> Response | None:
        """Refuse to let anybody join a call that is not there, or no more."""
        call_id = parse_qs(urlsplit(request.path).query).get("call_id", [""])[0]
        if not call_id:
            return None
        call = self.taken.get(call_id)
        same = call is not None and _key_of(request) == call.key
        if call is None or call.over or not same:
            return socket.respond(404, '{"error":{"message":"No session found for the provided call_id"}}')
        if self.joins.get(call.model, 0) > 0:
            self.joins[call.model] -= 1
            return socket.respond(404, "")
        return None

    def post(self, head: str, body: bytes) -> bytes | None:
        """The answer to a POST; None: the connection breaks."""
        lines = head.split("\r\n")
        path = lines[0].split(" ")[1]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        key = headers.get("authorization", "")
        if path.endswith("/hangup"):
            call = self.taken.get(path.split("/")[-2])
            if call is None or call.over or call.key != key:
                return _http(404, {"error": {"message": "No call of this id.", "code": "call_id_not_found"}})
            self.hang_up(call)
            return _http(200, b"")
        assert path == "/v1/realtime/calls", path
        parts = _parts(headers["content-type"], body)
        session = json.loads(parts["session"])
        call = WebRtc(f"rtc_u1_{len(self.taken)}", key, parts["sdp"].decode(), session)
        dead = "sk-dead" in key or "sk-first" in key
        if dead or call.model in self.refused:
            status, message = (401, "Incorrect API key provided.") if dead else self.refused[call.model]
            self.calls[call.model] += [Call(None, call.model, "", key, path)] if dead else []  # type: ignore[arg-type]
            code = "invalid_api_key" if dead else None
            error = {"message": message, "type": "invalid_request_error", "code": code, "param": None}
            return _http(status, {"error": error})
        self.taken[call.id] = call
        location = f"location: /v1/realtime/calls/{call.id}\r\n"
        return _http(201, ANSWER.encode(), "application/sdp", location)

    def hang_up(self, call: WebRtc) -> None:
        """End a call, from any thread: its sidebands are closed."""
        call.over = True
        for one in call.sidebands:
            asyncio.run_coroutine_threadsafe(one.socket.close(1000, "call ended"), self._loop)

    def of(self, model: str) -> list[WebRtc]:
        """The calls that were taken for a model."""
        return [call for call in self.taken.values() if call.model == model]


def _select_protocol(_: ServerConnection, offered: Sequence[websockets.Subprotocol]) -> websockets.Subprotocol | None:
    """The one that browsers must be answered with; servers need not offer it."""
    return next((one for one in offered if one == "realtime"), None)


def _key_of(request: Request) -> str:
    """As in a header, also where a browser has it among its protocols."""
    found = re.search(r"openai-insecure-api-key\.([^\s,]+)", request.headers.get("sec-websocket-protocol", ""))
    return f"Bearer {found[1]}" if found else request.headers.get("authorization", "")


_quiet = logging.Logger("quiet", logging.CRITICAL + 1)  # a POST is no broken handshake


def _http(status: int, body: Any, kind: str = "application/json", more: str = "") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} OK\r\ncontent-type: {kind}\r\n{more}content-length: {len(data)}\r\n"
    return f"{head}connection: close\r\n\r\n".encode() + data


def _parts(content_type: str, body: bytes) -> dict[str, bytes]:
    """The fields of a form whose parts have types."""
    boundary = parse_options_header(content_type)[1][b"boundary"]
    found = {}
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]+)"', head)
        assert name is not None and b"content-type: application/" in head.lower(), head
        found[name[1].decode()] = content.removesuffix(b"\r\n")
    return found


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
