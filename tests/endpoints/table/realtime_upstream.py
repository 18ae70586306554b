"""What realtime upstreams of the table do, and their client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import websockets
from websockets.asyncio.client import connect

from tests.support.peers.realtime import Call, Script

# -- what it does ------------------------------------------------------------------------------------------------------


async def _responses(call: Call) -> AsyncIterator[dict[str, Any]]:
    """Events by which the client asks for something, each begun to be answered."""
    writing = {"input": {"transcription": {"model": call.model}}}
    await call.say("session.created", session={"type": "realtime", "audio": writing})
    while True:
        event = await call.receive()
        if event["type"] == "response.create":
            await call.say("response.created", response={"id": "r", "status": "in_progress"})
            await call.say("response.output_text.delta", response_id="r", delta="said " * 20)
            yield event
        elif event["type"] == "input_audio_buffer.commit":
            await call.say("input_audio_buffer.committed", item_id="item_1")
            yield event


def answering(usage: Any, written: Any) -> Script:
    """`usage`: of responses. `written`: of transcriptions."""

    async def script(call: Call) -> None:
        async for event in _responses(call):
            if event["type"] == "response.create":
                await call.say("response.done", response={"id": "r", "status": "completed", "usage": usage})
            else:
                kind = "conversation.item.input_audio_transcription.completed"
                await call.say(kind, item_id="item_1", transcript="one two three", usage=written)

    return script


def failing(message: str) -> Script:
    """An error in place of the answer."""

    async def script(call: Call) -> None:
        await call.say("session.created", session={"type": "realtime"})
        await call.receive()
        await call.say("error", error={"type": "server_error", "message": message, "code": None, "param": None})
        await call.socket.close(1011, message[:100])

    return script


async def cutting(call: Call) -> None:
    """The connection breaks in the middle of the answer."""
    async for _ in _responses(call):
        call.socket.transport.abort()


async def silent(call: Call) -> None:
    """It falls silent in the middle of the answer."""
    async for _ in _responses(call):
        await call.socket.wait_closed()


async def endless(call: Call) -> None:
    """It ends when it is cancelled, and not before."""
    async for _ in _responses(call):
        cancelled = asyncio.ensure_future(call.receive())
        while not cancelled.done():
            await call.say("response.output_text.delta", response_id="r", delta="word " * 40)
            await asyncio.wait({cancelled}, timeout=0.01)
        await call.say("response.done", response={"id": "r", "status": "cancelled", "usage": None})


async def refusing(call: Call) -> None:
    """A key that is dead, as an error after the handshake."""
    error = {"type": "invalid_request_error", "code": "invalid_api_key", "message": "Incorrect API key provided."}
    await call.say("error", error={**error, "param": None})
    await call.socket.close(3000, "invalid_request_error.invalid_api_key")


def talk(url: str, token: str, asks: Sequence[dict[str, Any]], leaves: bool = False) -> tuple[int, str]:
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
