"""A realtime upstream that answers each event of a client as OpenAI's server does, for the suites of official clients.

Two things are not as there: a response whose metadata says so has every event that there is, and deleting an item
closes the connection if its id says with what.
"""

from __future__ import annotations

from typing import Any

from tests.support.peers.every_event import ERROR, USAGE, every_event
from tests.support.peers.realtime import CREATED, Call

CLOSE = "close"  # the item `close 1001 bye`
EVERYTHING = {"say": "everything"}
TRANSCRIPT = "hello there"
_NO_RESPONSE = "Cancellation failed: no active response found"


def describe_item(event: dict[str, Any]) -> dict[str, Any]:
    item: dict[str, Any] = {"id": "item_1", "object": "realtime.item", "status": "completed", **event["item"]}
    return item


async def converse(call: Call) -> None:
    await call.send(CREATED)
    commits = 0
    while True:
        event = await call.receive()
        match event["type"]:
            case "session.update" | "transcription_session.update":
                told = {**CREATED["session"], **event["session"]}  # type: ignore[dict-item]
                await call.say(f"{event['type']}d", event_id="event_2", session=told)
            case "input_audio_buffer.commit":
                commits += 1
                await _write_down(call, f"item_{commits}")
            case "input_audio_buffer.clear":
                await call.say("input_audio_buffer.cleared", event_id="event_3")
            case "output_audio_buffer.clear":
                await call.say("output_audio_buffer.cleared", event_id="event_3", response_id="resp_1")
            case "conversation.item.create":
                item = describe_item(event)
                for kind in ("added", "done"):
                    await call.say(f"conversation.item.{kind}", event_id="event_4", item=item, previous_item_id=None)
            case "conversation.item.retrieve":
                item = {"id": event["item_id"], "type": "message", "role": "user", "content": []}
                await call.say("conversation.item.retrieved", event_id="event_5", item=item)
            case "conversation.item.truncate":
                told = {name: event[name] for name in ("item_id", "content_index", "audio_end_ms")}
                await call.say("conversation.item.truncated", event_id="event_6", **told)
            case "conversation.item.delete":
                word, _, how = event["item_id"].partition(" ")
                if word == CLOSE:
                    code, _, reason = how.partition(" ")
                    await call.socket.close(int(code), reason)
                await call.say("conversation.item.deleted", event_id="event_7", item_id=event["item_id"])
            case "response.create":
                await _respond(call, event.get("response") or {})
            case "response.cancel":
                error = {**ERROR, "message": _NO_RESPONSE, "code": "response_cancel_not_active", "param": None}
                await call.say("error", event_id="event_8", error={**error, "event_id": event.get("event_id")})


async def _write_down(call: Call, item: str) -> None:
    transcription = "conversation.item.input_audio_transcription"
    await call.say("input_audio_buffer.committed", event_id="event_9", item_id=item, previous_item_id=None)
    await call.say(f"{transcription}.delta", event_id="event_10", item_id=item, content_index=0, delta="hello")
    usage = {"type": "tokens", "total_tokens": 5, "input_tokens": 3, "output_tokens": 2}
    more = {"item_id": item, "content_index": 0, "transcript": TRANSCRIPT, "usage": usage}
    await call.say(f"{transcription}.completed", event_id="event_11", **more)


async def _respond(call: Call, asked: dict[str, Any]) -> None:
    if asked.get("metadata") == EVERYTHING:
        for event in every_event():
            await call.send(event)
        return
    begun = {"id": "resp_2", "object": "realtime.response", "status": "in_progress", "output": []}
    of = {"response_id": "resp_2", "item_id": "item_2", "output_index": 0, "content_index": 0}
    await call.say("response.created", event_id="event_12", response=begun)
    for word in ("Hello", " there."):
        await call.say("response.output_text.delta", event_id="event_13", delta=word, **of)
    await call.say("response.output_text.done", event_id="event_14", text="Hello there.", **of)
    await call.say("response.done", event_id="event_15", response={**begun, "status": "completed", "usage": USAGE})
