"""A chat stream passes through unchanged; a scanner on the same bytes finds usage, errors and the end. Pure.

Nothing here decodes an event that need not be changed: one search runs over each buffer, and only events that it hits are parsed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

import msgspec

from portal.lib.json import encode
from relay.protocols.chat_completions.usage import parse_chat_usage
from relay.protocols.codec import DONE, EVENT_STREAM
from relay.protocols.sse import BOUNDARY, DATA_LINE, event_data, last_boundary, split_events
from relay.protocols.token_estimate import text_units
from relay.protocols.usage import Usage, present

_INTEREST: Final = re.compile(rb'"usage"\s*:\s*\{|"error"\s*:\s*["{]|\[DONE\]')
_INTEREST_WITH_FINISH: Final = re.compile(_INTEREST.pattern + rb'|"finish_reason"\s*:\s*"')
_USAGE_AT: Final = re.compile(rb'"usage"\s*:\s*(?=\{)')


# An unfinished event is held until its end comes, since it may turn out to be the usage chunk. Larger ones pass through as they arrive.
HOLD_LIMIT: Final = 64 * 1024
TAIL_LIMIT: Final = 4096
UNCOUNTED_LIMIT: Final = 32 * 1024  # text is counted in lumps, and not at all in a short stream whose upstream reports usage


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None
    usage: msgspec.Raw = msgspec.Raw()  # Moonshot puts it here


class _Chunk(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    choices: list[_Choice] | None = None


_chunk: Final = msgspec.json.Decoder(_Chunk)


@dataclass(slots=True)
class ChatStream:
    """Follows one chat stream. Feed it what arrives; send on what it returns.

    `started`: an event with data has come out. `error`: the upstream's error event, which does not come out.
    `drop_usage`: the client did not ask for usage, so the chunk that carries nothing else is taken out.
    `choices`, `watch_finish`: for upstreams without `[DONE]`, the end is every choice's finish_reason.
    """

    drop_usage: bool = False
    watch_finish: bool = False
    choices: int = 1
    usage: Usage | None = None
    error: bytes | None = None
    failed: bytes | None = None
    done: bool = False
    started: bool = False
    ending: bytes = DONE
    content_type: str = EVENT_STREAM
    _units: float = 0.0
    _uncounted: list[bytes] = field(default_factory=list)
    _uncounted_size: int = 0
    _held: bytes = b""
    _oversized: bool = False
    _tail: bytes = b""
    _finished: set[int] = field(default_factory=set)
    _terminal: bytes = b""

    def feed(self, data: bytes) -> bytes:
        """Bytes to send on now: whole events only, but for events over 64 KiB. After an error or `[DONE]` nothing more comes out."""
        if self.done or self.error is not None:
            return b""
        if self._oversized:
            return self._feed_oversized(data)
        buffer = self._held + data if self._held else data
        if buffer.endswith(b"\n\n"):
            end = len(buffer)
        else:
            end = last_boundary(buffer)
            if end == 0:
                return self._hold(buffer)
        self._held = buffer[end:]
        if len(self._held) > HOLD_LIMIT:
            rest = self._hold(self._held)
            return self._events(buffer[:end]) + rest
        return self._events(buffer[:end] if self._held else buffer)

    def finish(self) -> bytes:
        """The upstream closed the connection. Returns bytes that were still held back, when they make a whole event."""
        if self.done or self.error is not None or self._oversized or not self._held.strip():
            return b""
        held, self._held = self._held, b""
        # Some servers leave the last empty line out.
        return self._events(held)

    @property
    def terminal(self) -> bytes:
        """The end marker as the upstream wrote it. It goes out when the usage record is on disk."""
        return self._terminal

    @property
    def mid_event(self) -> bool:
        """What came out so far ends inside an event, one that is too large to be held: nothing else may be put in now."""
        return self._oversized

    @property
    def complete(self) -> bool:
        """The stream reached its end: `[DONE]`, or every finish_reason where that is the rule."""
        return self.done or (self.watch_finish and len(self._finished) >= self.choices)

    @property
    def text_units(self) -> float:
        """A rough number of tokens of the text that came out, 0 when the upstream reports usage."""
        if self.usage is not None:
            return 0.0
        self._count_now()
        return self._units

    def delivered_units(self) -> float:
        """A rough number of tokens of the text that has come out so far."""
        self._count_now()
        return self._units

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        """The event by which a stream ends that cannot go on."""
        return b"data: " + encode({"error": {"message": message, "type": kind, "param": param, "code": code}}) + b"\n\n"

    # -- inside ------------------------------------------------------------------------------------------------------

    def _hold(self, buffer: bytes) -> bytes:
        if len(buffer) <= HOLD_LIMIT:
            self._held = buffer
            return b""
        self._held, self._oversized, self._tail = b"", True, buffer[-TAIL_LIMIT:]
        self.started = True
        self._count_text(buffer)
        return buffer

    def _feed_oversized(self, data: bytes) -> bytes:
        joined = self._tail[-3:] + data
        match = BOUNDARY.search(joined)
        if match is None:
            self._tail = (self._tail + data)[-TAIL_LIMIT:]
            self._count_text(data)
            return data
        end = max(match.end() - len(self._tail[-3:]), 0)
        tail = (self._tail + data[:end])[-TAIL_LIMIT:]
        self._oversized, self._tail = False, b""
        hits = list(_USAGE_AT.finditer(tail))
        if hits:
            self.usage = _object_at(tail, hits[-1].end()) or self.usage
        return data[:end] + self.feed(data[end:])

    def _events(self, events: bytes) -> bytes:
        """Look into a run of whole events."""
        self._count_text(events)
        at = self._first_interest(events)
        out = events if at < 0 else self._sift(events, at)
        if not self.started and DATA_LINE.search(out):
            self.started = True
        return out

    def _sift(self, events: bytes, at: int) -> bytes:
        """A run of whole events without those that must not go out now; `at` is where the first of interest may begin."""
        # What comes before the first event of interest goes out as it is.
        start = last_boundary(events[:at])
        kept = [events[:start]] if start else []
        pattern = _INTEREST_WITH_FINISH if self.watch_finish else _INTEREST
        for event in split_events(events[start:] if start else events):
            if pattern.search(event) is None or self._keep(event):
                kept.append(event)
            if self.done or self.error is not None:
                break
        return b"".join(kept)

    def _first_interest(self, events: bytes) -> int:
        """Where something begins that must be looked at, -1 when there is nothing. Plain searches, ten times as fast as one expression."""
        if not self.watch_finish and b"[DONE]" not in events and not _has_value(events, b'"usage"') and not _has_value(events, b'"error"'):
            return -1
        found = [events.find(mark) for mark in (b"[DONE]", b'"usage":{', b'"usage": {')]
        plain = [position for position in found if position >= 0]
        if plain and not self.watch_finish and b'"error"' not in events:
            return min(plain)
        match = (_INTEREST_WITH_FINISH if self.watch_finish else _INTEREST).search(events)
        return match.start() if match else -1

    def _keep(self, event: bytes) -> bool:
        """Parse one event that may matter. False when it must not be sent on now."""
        data = event_data(event)
        if data.strip() == b"[DONE]":
            self.done, self._terminal = True, event
            return False
        try:
            chunk = _chunk.decode(data)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return True
        if present(chunk.error):
            self.error = data
            return False
        usage = chunk.usage
        for choice in chunk.choices or ():
            if choice.finish_reason:
                self._finished.add(choice.index)
            if not present(usage):
                usage = choice.usage
        if present(usage):
            self.usage = parse_chat_usage(usage) or self.usage
            if self.drop_usage and chunk.choices == []:
                return False
        return True

    def _count_text(self, data: bytes) -> None:
        self._uncounted.append(data)
        self._uncounted_size += len(data)
        if self._uncounted_size > UNCOUNTED_LIMIT:
            self._count_now()

    def _count_now(self) -> None:
        for data in self._uncounted:
            self._units += text_units(data)
        self._uncounted, self._uncounted_size = [], 0


def _has_value(events: bytes, name: bytes) -> bool:
    """Whether a member of this name is there with something else than null."""
    count = events.count(name)
    return count > 0 and count != events.count(name + b":null") + events.count(name + b": null")


def _object_at(text: bytes, start: int) -> Usage | None:
    """The usage object that begins at `start`, whatever follows it."""
    depth = 0
    for position in range(start, len(text)):
        byte = text[position]
        if byte == 0x7B:
            depth += 1
        elif byte == 0x7D:
            depth -= 1
            if depth == 0:
                return parse_chat_usage(text[start : position + 1])
    return None
