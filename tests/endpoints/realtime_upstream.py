"""A scripted upstream of realtime: a websocket server on a real port. The name of the model chooses what it does."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

Script = Callable[["Talk"], Awaitable[None]]


class Talk:
    """One connection of the portal."""

    def __init__(self, socket: ServerConnection, model: str, key: str) -> None:
        self.socket, self.model, self.key = socket, model, key

    async def say(self, kind: str, **more: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **more}))

    async def heard(self) -> dict[str, Any]:
        """The next event of the client."""
        found: dict[str, Any] = json.loads(await self.socket.recv())
        return found


class RealtimeUpstream:
    def __init__(self) -> None:
        self.talks: list[Talk] = []
        self.scripts: dict[str, Script] = {}
        self._started = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True).start()
        assert self._started.wait(10)

    def count(self, model: str) -> int:
        return sum(1 for talk in self.talks if talk.model == model)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)

    async def _run(self) -> None:
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        async with serve(self._handle, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            self._started.set()
            await self._stop.wait()

    async def _handle(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        model = parse_qs(urlsplit(socket.request.path).query)["model"][0]
        talk = Talk(socket, model, socket.request.headers.get("authorization", ""))
        self.talks.append(talk)
        try:
            await self.scripts[model](talk)
        except websockets.ConnectionClosed:
            pass


# -- what it does ------------------------------------------------------------------------------------------------------


async def _responses(talk: Talk) -> AsyncIterator[dict[str, Any]]:
    """Events by which the client asks for something, each begun to be answered."""
    writing = {"input": {"transcription": {"model": talk.model}}}
    await talk.say("session.created", session={"type": "realtime", "audio": writing})
    while True:
        event = await talk.heard()
        if event["type"] == "response.create":
            await talk.say("response.created", response={"id": "r", "status": "in_progress"})
            await talk.say("response.output_text.delta", response_id="r", delta="said " * 20)
            yield event
        elif event["type"] == "input_audio_buffer.commit":
            await talk.say("input_audio_buffer.committed", item_id="item_1")
            yield event


def answering(usage: Any, written: Any) -> Script:
    """`usage`: of responses. `written`: of transcriptions."""

    async def script(talk: Talk) -> None:
        async for event in _responses(talk):
            if event["type"] == "response.create":
                await talk.say("response.done", response={"id": "r", "status": "completed", "usage": usage})
            else:
                kind = "conversation.item.input_audio_transcription.completed"
                await talk.say(kind, item_id="item_1", transcript="one two three", usage=written)

    return script


def failing(message: str) -> Script:
    """An error in place of the answer."""

    async def script(talk: Talk) -> None:
        await talk.say("session.created", session={"type": "realtime"})
        await talk.heard()
        await talk.say("error", error={"type": "server_error", "message": message, "code": None, "param": None})
        await talk.socket.close(1011, message[:100])

    return script


async def cutting(talk: Talk) -> None:
    """The connection breaks in the middle of the answer."""
    async for _ in _responses(talk):
        talk.socket.transport.abort()


async def silent(talk: Talk) -> None:
    """It falls silent in the middle of the answer."""
    async for _ in _responses(talk):
        await talk.socket.wait_closed()


async def endless(talk: Talk) -> None:
    """It ends when it is cancelled, and not before."""
    async for _ in _responses(talk):
        cancelled = asyncio.ensure_future(talk.heard())
        while not cancelled.done():
            await talk.say("response.output_text.delta", response_id="r", delta="word " * 40)
            await asyncio.wait({cancelled}, timeout=0.01)
        await talk.say("response.done", response={"id": "r", "status": "cancelled", "usage": None})


async def refusing(talk: Talk) -> None:
    """A key that is dead, as an error after the handshake."""
    error = {"type": "invalid_request_error", "code": "invalid_api_key", "message": "Incorrect API key provided."}
    await talk.say("error", error={**error, "param": None})
    await talk.socket.close(3000, "invalid_request_error.invalid_api_key")


def call(url: str, token: str, asks: Sequence[dict[str, Any]], leaves: bool = False) -> tuple[int, str]:
    """What a client gets: the status of a refused handshake and its body, or 200 and all events.

    After an error it waits for the connection to be closed. `leaves`: it closes it once the answer has begun.
    """

    async def run() -> tuple[int, str]:
        got: list[str] = []
        try:
            headers = {"authorization": f"Bearer {token}"}
            async with asyncio.timeout(60), connect(url, additional_headers=headers) as socket:
                while True:
                    message = str(await socket.recv())
                    got.append(message)
                    kind = json.loads(message)["type"]
                    if kind == "session.created":
                        for event in asks:
                            await socket.send(json.dumps(event))
                    elif kind in _LAST or (leaves and kind in {"response.created", "input_audio_buffer.committed"}):
                        break
        except websockets.InvalidStatus as refused:
            return refused.response.status_code, (refused.response.body or b"").decode()
        except websockets.ConnectionClosed as closed:
            got.append(str(closed))
        return 200, "\n".join(got)

    return asyncio.run(run())


_LAST = ("response.done", "conversation.item.input_audio_transcription.completed")
