"""Events of the Realtime API that the portal must understand: what was used, and how to say that it is over. Pure.

Everything else passes through unread. Source: OpenAI's Realtime reference and SDK, November 2026; the older event names are read, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from portal.lib.json import Json, decode_object, encode, object_of, text_of
from relay.protocols.responses.usage import parse_responses_usage
from relay.protocols.usage import Usage, present

# What is searched for in an event before it is decoded: most events are pieces of audio.
MARKS: Final = ("response.done", "input_audio_transcription.completed", "session.updated", "session.created")


class _Response(msgspec.Struct):
    id: str = ""
    status: str = ""
    usage: msgspec.Raw = msgspec.Raw()


class _Event(msgspec.Struct):
    type: str = ""
    response: _Response | None = None
    usage: msgspec.Raw = msgspec.Raw()


_event: Final = msgspec.json.Decoder(_Event)


@dataclass(frozen=True, slots=True)
class Used:
    """What an event says was used. `transcription`: of the user's speech, by a model of its own; otherwise by a response. `usage` None: it does not say."""

    transcription: bool
    usage: Usage | None
    status: str = ""


def read_used(text: str) -> Used | None:
    """None for events that say nothing about use."""
    if not any(mark in text for mark in MARKS[:2]):
        return None
    try:
        event = _event.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if event.type == "response.done":
        raw = event.response.usage if event.response is not None else msgspec.Raw()
        return Used(False, parse_responses_usage(raw) if present(raw) else None, event.response.status if event.response else "")
    if event.type.endswith("input_audio_transcription.completed"):
        return Used(True, parse_responses_usage(event.usage) if present(event.usage) else None, "completed")
    return None


def transcription_model(text: str) -> str | None:
    """The model by which a session writes down what users say: empty for none, None for events that do not tell."""
    if not any(mark in text for mark in MARKS[2:]):
        return None
    event = decode_object(text)
    if event is None or text_of(event, "type") not in {"session.created", "session.updated"}:
        return None
    session = object_of(event, "session")
    found = object_of(object_of(object_of(session, "audio"), "input"), "transcription") or object_of(session, "input_audio_transcription")
    return text_of(found, "model")


def error_event(message: str, kind: str, code: str | None, param: str | None = None) -> str:
    return encode({"type": "error", "event_id": "event_portal", "error": {"type": kind, "code": code, "message": message, "param": param, "event_id": None}}).decode()


def session_update(session: Json) -> str:
    return encode({"type": "session.update", "session": session}).decode()
