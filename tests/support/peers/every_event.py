"""Every event that OpenAI's SDK can read in a realtime session, with what its type demands, made from the types.

So that a newer SDK brings its new events with it.
"""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from openai.types.beta.realtime import RealtimeServerEvent as OlderEvent
from openai.types.realtime import RealtimeServerEvent
from pydantic import BaseModel

USAGE: dict[str, Any] = {
    "total_tokens": 30,
    "input_tokens": 20,
    "output_tokens": 10,
    "input_token_details": {
        "text_tokens": 8,
        "audio_tokens": 12,
        "image_tokens": 0,
        "cached_tokens": 4,
        "cached_tokens_details": {"text_tokens": 0, "audio_tokens": 4, "image_tokens": 0},
    },
    "output_token_details": {"text_tokens": 2, "audio_tokens": 8},
}
_TRANSCRIBED = {"type": "tokens", "total_tokens": 5, "input_tokens": 3, "output_tokens": 2}
ERROR: dict[str, Any] = {
    "type": "invalid_request_error",
    "code": "invalid_value",
    "message": "Invalid value: 'loud'. Supported values are: 'alloy' and 'marin'.",
    "param": "session.audio.output.voice",
    "event_id": "event_of_mine",
}
_UNHEARD = {
    "type": "transcription_error",
    "code": "audio_unintelligible",
    "message": "The audio could not be transcribed.",
    "param": None,
}
_BEGUN: dict[str, Any] = {
    "id": "resp_1",
    "object": "realtime.response",
    "status": "in_progress",
    "status_details": None,
    "output": [],
}
# What is said in place of the least that the type demands.
_MORE: dict[str, dict[str, Any]] = {
    "response.created": {"response": _BEGUN},
    "response.done": {"response": {**_BEGUN, "status": "completed", "usage": USAGE}},
    "error": {"error": ERROR},
    "conversation.item.input_audio_transcription.failed": {"error": _UNHEARD},
    "response.output_audio.delta": {"delta": "AAAA"},
    "response.audio.delta": {"delta": "AAAA"},
    "conversation.item.input_audio_transcription.completed": {"transcript": "hello there", "usage": _TRANSCRIBED},
}
_LAST = ("response.done",)


def _instance(kind: Any, name: str) -> Any:
    """The least of a type: the members that it demands, and of unions the first."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return inner[0]
    if origin in (Union, types.UnionType, Annotated):
        return _instance(inner[0], name)
    if origin is list:
        return [_instance(inner[0], name)]
    if origin is dict:
        return {}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = kind.model_fields.items()
        return {field.alias or one: _instance(field.annotation, one) for one, field in fields if field.is_required()}
    return {str: "resp_1" if name == "response_id" else f"{name}_1", int: 1, float: 1.5, bool: True, object: name}[kind]


def _events_of(union: Any) -> list[dict[str, Any]]:
    found = {}
    for kind in get_args(get_args(union)[0]):
        event = _instance(kind, kind.__name__)
        found[event["type"]] = {**event, **_MORE.get(event["type"], {})}
    return list(found.values())


def every_event(older: bool = False) -> list[dict[str, Any]]:
    """One of each type, the beginning of the response first, its end last; what begins a session is not among them.

    `older`: of the API before it was generally available.
    """
    events = [event for event in _events_of(OlderEvent if older else RealtimeServerEvent) if _is_said(event)]
    first = [event for event in events if event["type"] == "response.created"]
    last = [event for event in events if event["type"] in _LAST]
    return [*first, *(event for event in events if event not in first + last), *last]


def _is_said(event: dict[str, Any]) -> bool:
    return not event["type"].endswith("session.created")
