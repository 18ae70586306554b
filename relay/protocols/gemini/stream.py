"""Passes a stream of generateContent through unchanged, while a scanner finds usage, errors and the end. Pure.

Events go on as their bytes. Of the last one with a `finishReason` it is not known whether it is the last of all, so
it is held until the next arrives, or until the usage record is on disk. There is no end marker: a stream is complete
when every candidate has a finishReason, or the prompt was blocked, and the connection ends cleanly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from portal.lib.json import decode_object, encode
from relay.protocols.characters import read_typed, read_whole_object
from relay.protocols.codec import OVERSIZED
from relay.protocols.error_objects import Envelope, named_error, unreadable_error
from relay.protocols.events import NOTHING_MADE, EventReader, TooLarge, payload
from relay.protocols.gemini.answer import Framing, has_content, parse_gemini_answer
from relay.protocols.gemini.errors import stream_error
from relay.protocols.gemini.usage import QUERIES, Searches, parse_gemini_usage
from relay.protocols.token_estimate import is_opaque, text_units
from relay.protocols.usage import Usage, newer, present

_LINE: Final = b"data: "
_UNCOUNTED_LIMIT: Final = 32 * 1024  # bytes of text that are counted at once
# What an event that only goes on has not. All others are decoded.
_MARKS: Final = (b'"finishReason"', b'"error"', b'"promptFeedback"')
_CONTENT: Final = b'"parts"'


class _Candidate(msgspec.Struct):
    index: object = None
    finishReason: object = None


class _Response(Envelope):
    candidates: list[_Candidate] | None = None
    promptFeedback: msgspec.Raw = msgspec.Raw()
    usageMetadata: msgspec.Raw = msgspec.Raw()


class _Metered(msgspec.Struct):
    usageMetadata: msgspec.Raw = msgspec.Raw()


_response: Final = msgspec.json.Decoder(_Response)
_metered: Final = msgspec.json.Decoder(_Metered)


@dataclass(slots=True)
class GeminiStream:
    """The codec of one stream. Feed it the bytes that arrive; send on the bytes it returns."""

    framing: Framing
    choices: int = 1  # how many candidates must finish
    error: bytes | None = None  # the upstream's error object, which is not sent on
    failed: bytes | None = None
    done: bool = False  # the stream is complete
    started: bool = False  # an event that says something has been returned
    ending: bytes = b""
    content_type: str = ""
    _reader: EventReader = field(default_factory=EventReader)
    _held: bytes = b""  # the event that may be the last
    _finished: set[int] = field(default_factory=set)
    _blocked: bool = False
    _cut: bool = False  # the body ended inside an event
    _terminal: bytes = b""
    _units: float = 0.0
    _opaque: bool = False
    _uncounted: list[bytes] = field(default_factory=list)
    _uncounted_size: int = 0
    _usage: Usage | None = None
    _searches: Searches = field(default_factory=Searches)
    _metered: bytes = b""  # the newest data with usage, unread: every event has one that grows

    def __post_init__(self) -> None:
        self.content_type = self.framing.content_type

    def feed(self, data: bytes) -> bytes:
        """The bytes to send on now. Empty after an error."""
        if self.done or self.error is not None:
            return b""
        try:
            events = self._reader.feed(data)
        except TooLarge:
            self.error = OVERSIZED
            return b""
        return self._pass(events)

    def finish(self, clean: bool = True) -> bytes:
        """The upstream closed the connection. `clean`: the body's framing says that it ends here."""
        if self.done or self.error is not None:
            return b""
        left = self._reader.finish()
        self._cut = any(data not in (b"", b"[DONE]") and decode_object(data) is None for data in map(payload, left))
        out = b"" if self._cut else self._pass(left)
        held, self._held = self._held, b""
        ended = len(self._finished) >= self.choices or self._blocked
        if ended and clean and not self._cut and not self._has_failed():
            self.done = self.started = True
            self._terminal = held + self.framing.end()
            return out
        return out + held

    def _has_failed(self) -> bool:
        return self.error is not None

    @property
    def usage(self) -> Usage | None:
        """As the upstream reports it."""
        self._read_usage()
        return self._searches.beside(self._usage)

    @usage.setter
    def usage(self, usage: Usage | None) -> None:
        self._usage = usage

    @property
    def complete(self) -> bool:
        return self.done

    @property
    def terminal(self) -> bytes:
        """The last event. It is sent once the usage record is on disk."""
        return self._terminal

    @property
    def mid_event(self) -> bool:
        """Always False: only complete events are returned."""
        return False

    def delivered_units(self) -> float:
        """The estimated tokens of the text that has been returned so far."""
        self._count_now()
        return self._units

    def audio_units(self) -> float:
        """Audio is in no member of its own: its tokens are those that are reported."""
        return 0.0

    def is_opaque(self) -> bool:
        """Whether there is content whose tokens cannot be estimated, such as images."""
        self._count_now()
        return self._opaque

    def media(self) -> Usage:
        """Searches that the answer so far is based on: the tokens of images are in the reported usage."""
        return Usage(searches=self._searches.count)

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        """The error event that ends a stream which cannot continue."""
        return self.framing.entry(encode(stream_error(message, kind, code, param))) + self.framing.end()

    # -- internals -----------------------------------------------------------------------------------------------------

    def _pass(self, events: list[bytes]) -> bytes:
        passed = []
        for event in events:
            passed.append(self._event(event))
            if self.error is not None:
                break
        return b"".join(passed)

    def _event(self, event: bytes) -> bytes:
        """Scan one event; returns the bytes to send on now for it."""
        plain = event.startswith(_LINE) and event.find(b"\n") >= len(event.rstrip(b"\r\n"))
        data = event[len(_LINE) :].strip() if plain else payload(event)
        if not data:
            self.error = named_error(event)
            return b""  # Google's SDK takes comments for answers
        if data == b"[DONE]":  # of relays: Google's clients cannot read it
            return b""
        last = False
        if (
            not self.started
            or not data.startswith(b"{")
            or not data.endswith(b"}")
            or any(mark in data for mark in _MARKS)
        ):
            try:
                found = read_typed(_response, data)
            except (msgspec.DecodeError, ValueError, RecursionError):
                self.error = unreadable_error(event, data)
                return b""
            if found.is_error(found.candidates is not None or present(found.promptFeedback)):
                self.error = data
                return b""
            last = self._read(found)
            if last and not self.started and self.choices == 1 and parse_gemini_answer(data) is None:
                self.error = NOTHING_MADE
                return b""
        if not self.started:
            self.started = last or (_CONTENT in data and has_content(data))
        if QUERIES in data:
            self._searches.add(read_whole_object(data) or {})
        if b'"usageMetadata"' in data:
            self._metered = data
            if last:
                self._read_usage()
        self._count(data)
        shown = event if plain and self.framing.sse else self.framing.entry(data)
        before, self._held = self._held, shown if last else b""
        return before if last else before + shown

    def _read(self, found: _Response) -> bool:
        """Whether the event may be the last one."""
        last = False
        for position, candidate in enumerate(found.candidates or ()):
            if candidate.finishReason:
                last = True
                self._finished.add(candidate.index if isinstance(candidate.index, int) else position)
        if not found.candidates and present(found.promptFeedback) and b'"blockReason"' in bytes(found.promptFeedback):
            self._blocked = last = True
        return last

    def _read_usage(self) -> None:
        data, self._metered = self._metered, b""
        try:
            raw = bytes(read_typed(_metered, data).usageMetadata) if data else b""
        except (msgspec.DecodeError, ValueError, RecursionError):
            return
        if raw:
            self._usage = newer(self._usage, parse_gemini_usage(raw))

    def _count(self, data: bytes) -> None:
        self._uncounted.append(data)
        self._uncounted_size += len(data)
        if self._uncounted_size > _UNCOUNTED_LIMIT:
            self._count_now()

    def _count_now(self) -> None:
        pieces, self._uncounted, self._uncounted_size = self._uncounted, [], 0
        if pieces:
            data = b"\n".join(pieces)
            self._units += text_units(data)
            self._opaque = self._opaque or is_opaque(data)
