"""The events of an interaction: written from a stored one, and read into the steps that they tell. Pure.

Source: google-genai 3.6.1 (`interactions.StepDelta` and its kin), ai.google.dev/gemini-api/docs/interactions/streaming;
November 2026.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from portal.lib.json import Json, decode_object, encode, int_of, object_of, objects_of, text_of
from relay.protocols.characters import read_whole_object
from relay.protocols.events import typed_event
from relay.protocols.interactions.objects import RUNNING

CREATED: Final = "interaction.created"
UPDATED: Final = "interaction.status_update"
COMPLETED: Final = "interaction.completed"
DONE: Final = b"event: done\ndata: [DONE]\n\n"  # with which Google ends streams
_CONTENT: Final = frozenset(("image", "audio", "video", "document"))  # deltas that are a content each
_log: Final = msgspec.json.Decoder(list[msgspec.Raw])


class AddEvent(Protocol):
    def __call__(self, kind: str, **members: object) -> None: ...


class LoggedEvent(NamedTuple):
    """An event of a stream, whole."""

    id: str  # from which a client can go on; empty: from none
    event: bytes


# -- reading -----------------------------------------------------------------------------------------------------------


def steps_of(events: Iterable[bytes]) -> list[Json]:
    """The steps that the data of events tells, as far as they have come."""
    steps: dict[int, Json] = {}
    arguments: dict[int, str] = {}
    for data in events:
        found = read_whole_object(data) or {}
        kind, index = text_of(found, "event_type"), int_of(found, "index")
        if kind == "step.start":
            steps[index] = object_of(found, "step")
        elif kind == "step.delta":
            step, delta = steps.setdefault(index, {"type": "model_output"}), object_of(found, "delta")
            if text_of(delta, "type") == "arguments_delta":
                arguments[index] = arguments.get(index, "") + text_of(delta, "arguments")
            else:
                _add(step, delta)
    for index, text in arguments.items():
        whole = decode_object(text.encode())
        steps[index]["arguments"] = {**object_of(steps[index], "arguments"), **(whole or {})}
    return [steps[index] for index in sorted(steps)]


def _add(step: Json, delta: Json) -> None:
    """Add a delta to its step, in place."""
    kind = text_of(delta, "type")
    if kind == "text":
        _add_text(step, "content", delta)
    elif kind == "thought_summary":
        _add_text(step, "summary", object_of(delta, "content"))
    elif kind == "thought_signature":
        step["signature"] = text_of(step, "signature") + text_of(delta, "signature")
    elif kind == "text_annotation_delta":
        contents = _list_in(step, "content")
        last: Json = contents[-1] if contents else {"type": "text", "text": ""}
        if not contents:
            contents.append(last)
        last["annotations"] = [*objects_of(last, "annotations"), *objects_of(delta, "annotations")]
    elif kind in _CONTENT:
        _list_in(step, "content").append(delta)
    else:  # the calls and results of tools
        step.update({name: value for name, value in delta.items() if name != "type"})


def _add_text(step: Json, name: str, content: Json) -> None:
    contents = _list_in(step, name)
    if contents and text_of(contents[-1], "type") == text_of(content, "type") == "text":
        contents[-1]["text"] = text_of(contents[-1], "text") + text_of(content, "text")
    elif content:
        contents.append(dict(content))


def _list_in(step: Json, name: str) -> list[Json]:
    found = step.get(name)
    if not isinstance(found, list):
        found = step[name] = []
    return found


# -- writing -----------------------------------------------------------------------------------------------------------


def events_of(interaction: Json) -> list[LoggedEvent]:
    """All events of an interaction in order, those that can be told while it runs: of its complete steps.

    The same ones every time, so that a client can go on from any of them.
    """
    found: list[LoggedEvent] = []

    def add(kind: str, **members: object) -> None:
        name = f"evt_{len(found)}"
        found.append(LoggedEvent(name, typed_event(kind, encode({**members, "event_id": name, "event_type": kind}))))

    running = text_of(interaction, "status") in RUNNING
    head = {name: value for name, value in interaction.items() if name not in {"steps", "usage", "errors"}}
    add(CREATED, interaction={**head, "status": "in_progress"})
    steps = objects_of(interaction, "steps")
    for index, step in enumerate(steps[:-1] if running else steps):
        _tell(add, index, step)
    if not running:
        add(COMPLETED, interaction={name: value for name, value in interaction.items() if name != "steps"})
    return found


def _tell(add: AddEvent, index: int, step: Json) -> None:
    kind = text_of(step, "type")
    told, deltas = step, list[Json]()
    if kind == "model_output":
        told, deltas = _without(step, "content"), _deltas_of(objects_of(step, "content"))
    elif kind == "thought":
        told = _without(step, "summary", "signature")
        deltas = [{"type": "thought_summary", "content": one} for one in objects_of(step, "summary")]
        if signature := text_of(step, "signature"):
            deltas.append({"type": "thought_signature", "signature": signature})
    elif kind == "function_call" and isinstance(step.get("arguments"), dict):
        told = {**step, "arguments": {}}
        deltas = [{"type": "arguments_delta", "arguments": encode(step["arguments"]).decode()}]
    add("step.start", index=index, step=told)
    for delta in deltas:
        add("step.delta", index=index, delta=delta)
    add("step.stop", index=index)


def _deltas_of(contents: Sequence[Json]) -> list[Json]:
    found: list[Json] = []
    for content in contents:
        if text_of(content, "type") != "text":
            found.append(content)
            continue
        found.append({"type": "text", "text": text_of(content, "text")})
        if annotations := objects_of(content, "annotations"):
            found.append({"type": "text_annotation_delta", "annotations": annotations})
    return found


def _without(step: Json, *names: str) -> Json:
    return {name: value for name, value in step.items() if name not in names}


def log_of(events: Iterable[bytes]) -> bytes:
    """The data of a stream's events as a JSON list, to be stored."""
    return b"[" + b",".join(events) + b"]"


def logged(log: bytes) -> list[LoggedEvent]:
    """The events of such a list; empty for what is none."""
    try:
        found = _log.decode(log)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return []
    events = []
    for raw in found:
        members = decode_object(bytes(raw)) or {}
        kind, name = text_of(members, "event_type"), text_of(members, "event_id")
        events.append(LoggedEvent(name, typed_event(kind, bytes(raw))))
    return events
