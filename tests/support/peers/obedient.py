"""A realtime upstream that does what the client's events say: how much it talks, reports, writes down, and when."""

from __future__ import annotations

import asyncio
from typing import Any

import websockets

from tests.support.peers.realtime import Call, RealtimeUpstream

NAME = "gpt-realtime"
USAGE = {
    "total_tokens": 30,
    "input_tokens": 20,
    "output_tokens": 10,
    "input_token_details": {"text_tokens": 10, "audio_tokens": 10, "cached_tokens": 4},
    "output_token_details": {"text_tokens": 2, "audio_tokens": 8},
}
WRITTEN = "conversation.item.input_audio_transcription.completed"


async def obey(call: Call) -> None:
    """Events of OpenAI's API are answered as it does; others say what is to happen."""
    session = {"type": "realtime", "audio": {"input": {"transcription": {"model": "heard"}}}}
    await call.say("session.created", session=session)
    saying: dict[str, Any] = {}  # the end of the last response, once it is cancelled
    commits = 0
    while True:
        event = await call.receive()
        if isinstance(event, bytes):
            await call.socket.send(event)
        elif event["type"] == "response.create":
            await call.say("response.created", response={"id": "r"})
            await call.say("response.done", response={"id": "r", "status": "completed", "usage": USAGE})
            if event.get("twice"):
                await call.say("response.done", response={"id": "r", "usage": USAGE})
        elif event["type"] == "talk":
            saying = await _talk(call, event)
        elif event["type"] == "response.cancel" and saying["usage"]:
            await call.say("response.done", response=saying)
        elif event["type"] == "speak":
            details = {"input_token_details": {"audio_tokens": 3}}
            usage = {"type": "tokens", "total_tokens": 5, "input_tokens": 3, "output_tokens": 2, **details}
            await call.say(WRITTEN, transcript="hi", usage=usage)
        elif event["type"] == "input_audio_buffer.commit":
            commits += 1
            item = f"item_{commits}"
            await call.say("input_audio_buffer.committed", item_id=item)
            await asyncio.sleep(event.get("after", 0))
            report = {"usage": event["usage"]} if "usage" in event else {}
            if not event.get("never"):
                await call.say(WRITTEN, item_id=item, transcript="hello there", **report)
        elif event["type"] == "echo":
            await call.say("echoed", pad=event["pad"])
        elif event["type"] == "flood":
            for number in range(400):
                await call.say("response.output_audio.delta", delta="A" * 100_000, number=number)
        elif event["type"] == "leave":
            await call.socket.close(1011, "bye")


async def _talk(call: Call, event: dict[str, Any]) -> dict[str, Any]:
    name = event["id"]
    await call.say("response.created", response={"id": name})
    for _ in range(event["words"]):
        await call.say("response.output_text.delta", response_id=name, delta="word " * 100)
    if event.get("done"):
        await call.say("response.done", response={"id": name, "status": "completed", "usage": event["done"]})
    await call.say("response.output_text.done", response_id=name)
    return {"id": name, "status": "cancelled", "usage": event.get("cancelled")}


class Obedient(RealtimeUpstream):
    """An upstream whose only model, `gpt-realtime`, obeys."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts[NAME] = obey

    @property
    def last(self) -> Call:
        """The newest connection."""
        return self.calls[NAME][-1]

    @property
    def got(self) -> list[Any]:
        """All events and frames of clients, of one connection after the other."""
        return [event for call in self.calls[NAME] for event in call.got]

    @property
    def commits(self) -> int:
        kind = "input_audio_buffer.commit"
        return sum(1 for event in self.got if isinstance(event, dict) and event["type"] == kind)

    def is_closed(self) -> bool:
        """Whether the newest connection is closed."""
        return self.last.socket.state is websockets.State.CLOSED
