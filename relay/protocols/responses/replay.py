"""Writes the events of a stored response, for clients that fetch it as a stream. Pure."""

from __future__ import annotations

from typing import Protocol

from portal.lib.json import Json, encode, objects_of, text_of
from relay.protocols.events import typed_event


class AddEvent(Protocol):
    def __call__(self, kind: str, **members: object) -> None: ...


def events_of(response: Json) -> list[bytes]:
    """All events in order, so that number n is at index n; only the opening ones while the response is in progress."""
    found: list[bytes] = []

    def add(kind: str, **members: object) -> None:
        found.append(typed_event(kind, encode({"type": kind, "sequence_number": len(found), **members})))

    status = text_of(response, "status")
    begun: Json = {
        **response,
        "status": "in_progress",
        "output": [],
        "usage": None,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
    }
    add("response.created", response=begun)
    add("response.in_progress", response=begun)
    if status in {"queued", "in_progress"}:
        return found
    for index, item in enumerate(objects_of(response, "output")):
        emptied: Json = {name: empty for name, empty in (("content", []), ("arguments", "")) if name in item}
        add("response.output_item.added", output_index=index, item={**item, **emptied})
        where: Json = {"item_id": text_of(item, "id"), "output_index": index}
        if text_of(item, "type") == "message":
            for number, part in enumerate(objects_of(item, "content")):
                _part(add, part, {**where, "content_index": number})
        elif text_of(item, "type") == "function_call":
            arguments = text_of(item, "arguments")
            add("response.function_call_arguments.delta", **where, delta=arguments)
            add("response.function_call_arguments.done", **where, name=text_of(item, "name"), arguments=arguments)
        add("response.output_item.done", output_index=index, item=item)
    kind = status if status in {"completed", "incomplete", "failed"} else "failed"
    add(f"response.{kind}", response=response)
    return found


def _part(add: AddEvent, part: Json, where: Json) -> None:
    kind = text_of(part, "type")
    if kind == "refusal":
        add("response.content_part.added", **where, part={**part, "refusal": ""})
        add("response.refusal.delta", **where, delta=text_of(part, "refusal"))
        add("response.refusal.done", **where, refusal=text_of(part, "refusal"))
    else:
        add("response.content_part.added", **where, part={**part, "text": "", "annotations": [], "logprobs": []})
        add("response.output_text.delta", **where, delta=text_of(part, "text"), logprobs=[])
        add("response.output_text.done", **where, text=text_of(part, "text"), logprobs=[])
    add("response.content_part.done", **where, part=part)
