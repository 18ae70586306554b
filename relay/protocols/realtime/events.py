"""Parses the usage in events of the Realtime API, checks those of clients, and writes events about limits. Pure.

The upstream's other events pass through unread. Source: OpenAI's Realtime reference and SDK, November
2026; the older event names are supported as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from portal.lib.json import Json, decode_object, encode, object_of, text_of
from relay.protocols.fields import BadRequest, check_inner_names, read_object
from relay.protocols.responses.usage import parse_responses_usage
from relay.protocols.usage import Usage, present

# Texts that are searched for before an event is decoded: most events are pieces of audio.
MARKS: Final = ("response.done", "input_audio_transcription.completed", '"transcription.done"')
SESSION_UPDATES: Final = frozenset(("session.update", "transcription_session.update"))  # of a client
# Of the upstream: those that tell its session.
SESSIONS: Final = frozenset(
    ("session.created", "session.updated", "transcription_session.created", "transcription_session.updated")
)
_SESSION_MARKS: Final = ("session.created", "session.updated")
_LIMITS: Final = "rate_limits.updated"
# Events with which servers begin a connection, and of which no session begins yet: xAI's and the older API's.
_PREAMBLES: Final = frozenset(("conversation.created", "ping"))
_DURATION: Final = re.compile(rb"(\d+)(ms|h|m|s)")
_SECONDS: Final = {b"ms": 0.001, b"s": 1, b"m": 60, b"h": 3600}


class _Response(msgspec.Struct):
    id: str | None = None
    status: str | None = None
    usage: msgspec.Raw = msgspec.Raw()


class _Event(msgspec.Struct):
    type: str = ""
    response: _Response | None = None
    usage: msgspec.Raw = msgspec.Raw()
    item_id: object = None
    transcript: object = None
    text: object = None


_event: Final = msgspec.json.Decoder(_Event)


@dataclass(frozen=True, slots=True)
class RealtimeUsage:
    """The usage that an event reports."""

    transcription: bool  # of the user's speech, by a separate model; otherwise of a response
    response_id: str
    usage: Usage | None  # None: the event has no counts
    status: str = ""  # of the response
    item_id: str = ""  # that was transcribed
    transcript: str = ""


def read_usage(text: str) -> RealtimeUsage | None:
    """The usage in an event; None for events of other types."""
    if not any(mark in text for mark in MARKS):
        return None
    try:
        event = _event.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    if event.type == "response.done":
        response = event.response or _Response()
        usage = parse_responses_usage(response.usage) if present(response.usage) else None
        return RealtimeUsage(False, response.id or "", usage, response.status or "")
    if event.type.endswith("input_audio_transcription.completed") or event.type == "transcription.done":  # vLLM
        usage = parse_responses_usage(event.usage) if present(event.usage) else None
        transcript = event.text if event.transcript is None else event.transcript
        item, said = (value if isinstance(value, str) else "" for value in (event.item_id, transcript))
        return RealtimeUsage(True, "", usage, "completed", item, said)
    return None


def with_limits(text: str, headers: Sequence[tuple[bytes, bytes]]) -> str | None:
    """An event of the upstream, in which its limits, which are those of the portal's account, are replaced by the
    client's.

    `headers`: `x-ratelimit-…` of the client. None: it has no limits to be told.
    """
    event = decode_object(text) if _LIMITS in text else None
    if event is None or text_of(event, "type") != _LIMITS:
        return text
    left = dict(headers)
    event["rate_limits"] = limits = [
        {
            "name": name,
            "limit": int(left[b"x-ratelimit-limit-%b" % name.encode()]),
            "remaining": int(left[b"x-ratelimit-remaining-%b" % name.encode()]),
            "reset_seconds": _seconds(left[b"x-ratelimit-reset-%b" % name.encode()]),
        }
        for name in ("requests", "tokens")
        if b"x-ratelimit-limit-%b" % name.encode() in left
    ]
    return encode(event).decode() if limits else None


def _seconds(duration: bytes) -> float:
    return sum(int(amount) * _SECONDS[unit] for amount, unit in _DURATION.findall(duration))


def is_preamble(text: str) -> bool:
    """Whether an event of the upstream comes before a session begins, or an error in its place."""
    return text_of(decode_object(text) or {}, "type") in _PREAMBLES


def is_session(text: str) -> bool:
    """Whether an event of the upstream tells its session."""
    return any(mark in text for mark in _SESSION_MARKS) and text_of(decode_object(text) or {}, "type") in SESSIONS


def client_event(text: str) -> Json:
    """A client's event. Raises BadRequest where parsers would read it differently."""
    try:
        event = read_object(text.encode("utf-8", "surrogatepass"))
        check_inner_names({"item": event})
    except BadRequest as bad:
        if bad.param is not None:
            raise
        raise BadRequest("An event must be a JSON object in UTF-8.", None, "invalid_json") from None
    return event


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A place of an event at which a model is named."""

    holder: Json  # whose member `model` it is
    param: str  # where that is
    transcribes: bool  # it writes the user's speech down; otherwise it is the session's own


def named_models(event: Json) -> list[NamedModel]:
    """The places at which a client's event names models: of the session, of a response, and of what writes speech down,
    by the newer and the older names.
    """
    found: list[NamedModel] = []
    if event.get("model") is not None:
        found.append(NamedModel(event, "model", False))
    for name in ("session", "response"):
        session = object_of(event, name)
        if session.get("model") is not None:
            found.append(NamedModel(session, f"{name}.model", False))
        inputs = object_of(object_of(session, "audio"), "input")
        for holder, member, path in (
            (inputs, "transcription", f"{name}.audio.input.transcription"),
            (session, "input_audio_transcription", f"{name}.input_audio_transcription"),
        ):
            if isinstance(holder.get(member), dict):
                found.append(NamedModel(object_of(holder, member), f"{path}.model", True))
    return found
