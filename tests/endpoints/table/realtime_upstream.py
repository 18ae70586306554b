"""What realtime upstreams of the table do, and their client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import websockets
from websockets.asyncio.client import connect

from tests.support.peers.realtime import Call, Script
from tests.support.server import NO_CERTIFICATES

OFFER = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"

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


def talk_in_call(
    url: str, model: str, tokens: tuple[str, str], asks: Sequence[dict[str, Any]], leaves: bool = False
) -> tuple[int, str]:
    """What a client gets of a call that it makes, joins (with the second of its tokens) and hangs up; as `talk`."""
    session = json.dumps({"type": "realtime", "model": model})
    files: Any = {"sdp": (None, OFFER, "application/sdp"), "session": (None, session, "application/json")}
    headers = {"authorization": f"Bearer {tokens[0]}"}
    with httpx.Client(headers=headers, timeout=60, trust_env=False, verify=NO_CERTIFICATES) as client:
        made = client.post(f"http{url}/realtime/calls", files=files)
        if made.status_code != 201:
            return made.status_code, made.text
        call_id = made.headers["location"].rpartition("/")[2]
        answer = talk(f"ws{url}/realtime?call_id={call_id}", tokens[1], asks, leaves, joins=True)
        client.post(f"http{url}/realtime/calls/{call_id}/hangup")
    return answer


def talk(
    url: str, token: str, asks: Sequence[dict[str, Any]], leaves: bool = False, joins: bool = False
) -> tuple[int, str]:
    """What a client gets: the status of a refused handshake and its body, or 200 and all events.

    After an error it waits for the connection to be closed. `leaves`: it closes it once the answer has begun. `joins`:
    the session has begun.
    """

    async def run() -> tuple[int, str]:
        got: list[str] = []
        try:
            headers = {"authorization": f"Bearer {token}"}
            async with asyncio.timeout(60), connect(url, additional_headers=headers) as socket:
                begun = False
                while True:
                    if joins and not begun:
                        kind = "session.created"
                    else:
                        message = str(await socket.recv())
                        got.append(message)
                        kind = json.loads(message)["type"]
                    if kind == "session.created":
                        begun = True
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
