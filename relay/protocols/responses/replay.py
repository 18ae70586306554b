"""The events of a response that is there already, for clients that fetch it as a stream. Pure."""

from __future__ import annotations

from typing import Protocol

from portal.lib.json import Json, encode, objects_of, text_of
from relay.protocols.events import typed_event


class Say(Protocol):
    def __call__(self, kind: str, **members: object) -> None: ...


def events_of(response: Json) -> list[bytes]:
    """Every event, in order; that of number n is the n-th. Of one that is still being made, only those of its begin."""
    found: list[bytes] = []

    def say(kind: str, **members: object) -> None:
        found.append(typed_event(kind, encode({"type": kind, "sequence_number": len(found), **members})))

    status = text_of(response, "status")
    begun: Json = {**response, "status": "in_progress", "output": [], "usage": None, "completed_at": None, "error": None, "incomplete_details": None}
    say("response.created", response=begun)
    say("response.in_progress", response=begun)
    if status in {"queued", "in_progress"}:
        return found
    for index, item in enumerate(objects_of(response, "output")):
        say("response.output_item.added", output_index=index, item={**item, **({"content": []} if "content" in item else {}), **({"arguments": ""} if "arguments" in item else {})})
        where: Json = {"item_id": text_of(item, "id"), "output_index": index}
        if text_of(item, "type") == "message":
            for number, part in enumerate(objects_of(item, "content")):
                _part(say, part, {**where, "content_index": number})
        elif text_of(item, "type") == "function_call":
            arguments = text_of(item, "arguments")
            say("response.function_call_arguments.delta", **where, delta=arguments)
            say("response.function_call_arguments.done", **where, name=text_of(item, "name"), arguments=arguments)
        say("response.output_item.done", output_index=index, item=item)
    kind = status if status in {"completed", "incomplete", "failed"} else "failed"
    say(f"response.{kind}", response=response)
    return found


def _part(say: Say, part: Json, where: Json) -> None:
    kind = text_of(part, "type")
    if kind == "refusal":
        say("response.content_part.added", **where, part={**part, "refusal": ""})
        say("response.refusal.delta", **where, delta=text_of(part, "refusal"))
        say("response.refusal.done", **where, refusal=text_of(part, "refusal"))
    else:
        say("response.content_part.added", **where, part={**part, "text": "", "annotations": [], "logprobs": []})
        say("response.output_text.delta", **where, delta=text_of(part, "text"), logprobs=[])
        say("response.output_text.done", **where, text=text_of(part, "text"), logprobs=[])
    say("response.content_part.done", **where, part=part)
