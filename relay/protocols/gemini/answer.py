"""Reads complete answers of generateContent that pass through, and the forms in which Gemini streams. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from portal.lib.json import Json, encode
from relay.protocols.characters import read_typed, read_whole_object
from relay.protocols.codec import EVENT_STREAM, JSON_STREAM
from relay.protocols.error_objects import Envelope
from relay.protocols.events import payload
from relay.protocols.gemini.usage import QUERIES, Searches, parse_gemini_usage
from relay.protocols.sse import is_stream, split_events
from relay.protocols.usage import Usage, present

SEPARATOR: Final = b"\r\n\r\n"  # as Google ends events
_BLANK: Final = 128  # bytes of a part that may say nothing

_list: Final = msgspec.json.Decoder(list[msgspec.Raw])


class _Content(msgspec.Struct):
    parts: list[msgspec.Raw] | None = None


class _Candidate(msgspec.Struct):
    finishReason: object = None
    content: _Content | None = None


class _Answer(Envelope):
    candidates: msgspec.Raw = msgspec.Raw()
    promptFeedback: msgspec.Raw = msgspec.Raw()
    usageMetadata: msgspec.Raw = msgspec.Raw()


_answer: Final = msgspec.json.Decoder(_Answer)
_candidates: Final = msgspec.json.Decoder(list[_Candidate])
_members: Final = msgspec.json.Decoder(dict[str, object])


@dataclass(frozen=True, slots=True)
class GeminiAnswer:
    """What the portal needs of a complete answer."""

    usage: Usage | None
    error: bytes | None = None  # the error object that came with the status 200


def parse_gemini_answer(body: bytes) -> GeminiAnswer | None:
    """Parse a complete answer; None when the body is none: it says nothing, and not why."""
    try:
        found = read_typed(_answer, body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    answered = present(found.candidates) or present(found.promptFeedback)
    if found.is_error(answered):
        return GeminiAnswer(None, body)
    if not answered:
        return None
    usage = parse_gemini_usage(found.usageMetadata) if present(found.usageMetadata) else None
    if QUERIES in bytes(found.candidates):
        searches = Searches()
        searches.add(read_whole_object(body) or {})
        usage = searches.beside(usage)
    if b'"blockReason"' not in bytes(found.promptFeedback) and _is_empty(found.candidates, usage):
        return None
    return GeminiAnswer(usage)


def _is_empty(candidates: msgspec.Raw, usage: Usage | None) -> bool:
    """Whether no candidate says anything, although nothing has cut it and nothing was made."""
    try:
        found = _candidates.decode(candidates) if present(candidates) else []
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return all(is_nothing(one.finishReason, usage) and _says_nothing(one) for one in found)


def _says_nothing(candidate: _Candidate) -> bool:
    parts = candidate.content.parts if candidate.content is not None else None
    return all(map(_is_blank, parts or ()))


def _is_blank(part: msgspec.Raw) -> bool:
    """Whether a part is a text in which nothing is."""
    if len(bytes(part)) > _BLANK:
        return False
    try:
        found = _members.decode(part)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return not found.get("text") and found.keys() <= {"text", "thought"}


def has_content(data: bytes) -> bool:
    """Whether a piece of an answer has a part that says something."""
    try:
        found = read_typed(_answer, data).candidates
        return not all(map(_says_nothing, _candidates.decode(found) if present(found) else []))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return True


def is_nothing(finish_reason: object, usage: Usage | None) -> bool:
    """Whether a candidate without a part is no answer: nothing was made for it, and nothing has cut or blocked it."""
    return finish_reason in (None, "", "STOP") and not (usage is not None and usage.output)


def whole_events(body: bytes) -> list[bytes]:
    """The responses in a body: one, those of a stream of events, or those of a list. Empty for what is no JSON."""
    text = body.strip()
    if text.startswith(b"{"):
        return [text]
    if is_stream(text):
        return [data for event in split_events(body) if (data := payload(event)) and data != b"[DONE]"]
    try:
        return list(map(bytes, _list.decode(text)))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return []


@dataclass(slots=True)
class Framing:
    """Writes the responses of a stream as events, or as the entries of a list for clients without `alt=sse`."""

    sse: bool
    _begun: bool = False

    @property
    def content_type(self) -> str:
        return EVENT_STREAM if self.sse else JSON_STREAM

    def entry(self, data: bytes) -> bytes:
        """One response."""
        if self.sse:
            return b"data: " + data + SEPARATOR
        begun, self._begun = self._begun, True
        return (b",\r\n" if begun else b"[") + data

    def end(self) -> bytes:
        """What ends a stream, complete or not."""
        if self.sse:
            return b""
        begun, self._begun = self._begun, True
        return b"]" if begun else b"[]"


def stream_of(answer: Json, framing: Framing) -> bytes:
    """The stream of a complete answer, for upstreams that answer plain where a stream was asked for."""
    return framing.entry(encode(answer)) + framing.end()
