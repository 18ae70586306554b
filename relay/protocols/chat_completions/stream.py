"""Passes a chat completions stream through unchanged, while a scanner finds usage, errors and the end. Pure.

The first events are decoded, until one says something: what precedes it is held, so that an answer which fails before
it can be tried elsewhere. Later events that need no change are not: a few searches run over each buffer, and only what
they hit is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from portal.lib.json import decode, decode_object, encode
from relay.protocols.characters import read_object, read_typed
from relay.protocols.chat_completions.answer import chunks_of
from relay.protocols.chat_completions.dialects import FAILED, error_of_choices, finish_reason
from relay.protocols.chat_completions.usage import delta_units, parse_chat_usage, usage_at
from relay.protocols.codec import DONE, EVENT_STREAM, says_something
from relay.protocols.error_objects import Envelope, named_error, states, unreadable_error
from relay.protocols.sse import BOUNDARY, event_data, last_boundary, next_boundary, split_events
from relay.protocols.token_estimate import are_opaque, audio_units, open_member, rest_units, text_units
from relay.protocols.usage import NO_USAGE, Usage, newer, present

_FINISH: Final = re.compile(rb'"finish_reason"\s*:\s*"')
_USAGE_AT: Final = re.compile(rb'"usage"\s*:\s*(?=\{)')
_STRAY_LINE: Final = re.compile(rb"(?:^|[\r\n])(?:error:|[{\[<])")  # no field of an event: an error, by all experience

# Bytes of an incomplete event that are buffered until its end arrives, since it may turn out to be the usage chunk.
# Larger events pass through as they arrive.
HOLD_LIMIT: Final = 64 * 1024
TAIL_LIMIT: Final = 4096
# Bytes of text that are counted at once. A short stream whose upstream reports usage is never counted.
UNCOUNTED_LIMIT: Final = 32 * 1024
_LAST_EVENTS: Final = 4  # looked at one by one at the end of a buffer: finish_reason, usage, end marker
# Members of chunks that need not be read, as servers write JSON with spaces and without. The first bytes of a buffer
# tell which; a wrong guess costs time only.
_SPACED: Final = (b'"usage": null', b'"error": null', b'"finish_reason": null')
_COMPACT: Final = (b'"usage":null', b'"error":null', b'"finish_reason":null')
_SNIFF: Final = 32


def error_event(body: bytes) -> bytes:
    """The event of an error, from the error's body."""
    return b"data: " + body + b"\n\n"


class _Choice(msgspec.Struct):
    index: object = None
    finish_reason: object = None
    usage: msgspec.Raw = msgspec.Raw()  # Moonshot puts it here
    error: object = None  # OpenRouter puts it here
    delta: msgspec.Raw = msgspec.Raw()
    message: msgspec.Raw = msgspec.Raw()
    text: object = None  # of legacy completions


class _Chunk(Envelope):
    usage: msgspec.Raw = msgspec.Raw()
    choices: list[_Choice] | None = None


_chunk: Final = msgspec.json.Decoder(_Chunk)


class ChatStream(msgspec.Struct):
    """The codec of one chat completions stream. Feed it the bytes that arrive; send on the bytes it returns."""

    drop_usage: bool = False  # the client did not ask for usage: the chunk that carries nothing else is removed
    watch_finish: bool = False  # the upstream sends no `[DONE]`, and its body may end without proof that it is whole
    choices: int = 1  # how many choices must finish
    usage: Usage | None = None  # as the upstream reports it
    error: bytes | None = None  # the upstream's error event, which is not sent on
    failed: bytes | None = None
    done: bool = False  # `[DONE]` has arrived
    started: bool = False  # an event with content or a finish_reason has been returned
    ending: bytes = DONE
    content_type: str = EVENT_STREAM
    _units: float = 0.0  # estimated tokens counted so far
    _audio: float = 0.0  # of them, of audio
    _opaque: bool = False  # there is content whose tokens cannot be estimated
    _messages: dict[int, float] = msgspec.field(
        default_factory=dict
    )  # the same of whole messages beside deltas, by choice
    _uncounted: list[bytes] = msgspec.field(default_factory=list)  # returned, and not yet counted
    _uncounted_size: int = 0
    _held: bytes = b""  # an event whose end has not arrived
    _oversized: bool = False  # inside an event that is larger than HOLD_LIMIT
    _tail: bytes = b""  # the last bytes of that event
    _open: str = ""  # the kind of string that the bytes so far of that event end in
    _chunked: bool = False  # a chunk with choices has arrived
    _cut: bool = False  # the body ended inside an event
    _clean: bool = False  # the body has ended where its framing says
    _finished: set[int] = msgspec.field(default_factory=set)  # indexes of the choices with a finish_reason
    _terminal: bytes = b""

    def feed(self, data: bytes) -> bytes:
        """The bytes to send on now: complete events, except for events over 64 KiB.

        Empty after an error or `[DONE]`.
        """
        if self.done or self.error is not None:
            return b""
        if self._oversized:
            return self._feed_oversized(data)
        if not self._held and data.endswith(b"\n\n"):
            return self._events(data)
        buffer = self._held + data
        end = len(buffer) if buffer.endswith(b"\n\n") else last_boundary(buffer)
        if end == 0:
            return self._hold(buffer)
        self._held = buffer[end:]
        if len(self._held) > HOLD_LIMIT:
            rest = self._hold(self._held)
            return self._events(buffer[:end]) + rest
        return self._events(buffer[:end] if self._held else buffer)

    def finish(self, clean: bool = True) -> bytes:
        """The upstream closed the connection: returns the buffered bytes when they are a complete event.

        `clean`: the body's framing says that it ends here.
        """
        self._clean = clean
        if self.done or self.error is not None or not (self._oversized or self._held.strip()):
            return b""
        held, self._held = self._held, b""
        data = event_data(held).strip()
        if self._oversized or (data not in (b"", b"[DONE]") and read_object(data)[0] is None):
            self._cut = True
            return b""
        # Some servers omit the last empty line.
        return self._events(held)

    @property
    def terminal(self) -> bytes:
        """The end marker as the upstream wrote it. It is sent once the usage record is on disk."""
        return self._terminal

    @property
    def mid_event(self) -> bool:
        """Whether the bytes returned so far end inside an oversized event, so that nothing may be inserted now."""
        return self._oversized

    @property
    def complete(self) -> bool:
        """Whether the stream reached its end: `[DONE]`, or every choice's finish_reason and a clean end."""
        whole = len(self._finished) >= self.choices and not self._cut
        return self.done or (whole and (self._clean or self.watch_finish))

    def delivered_units(self) -> float:
        """The estimated tokens of the text and audio that have been returned so far."""
        self._count_now()
        return max(self._units, sum(self._messages.values()) + self._audio)

    def audio_units(self) -> float:
        """Of them, those of audio."""
        self._count_now()
        return self._audio

    def is_opaque(self) -> bool:
        """Whether there is content whose tokens cannot be estimated, such as images."""
        self._count_now()
        return self._opaque

    def media(self) -> Usage:
        """Images and speech that have been returned so far: audio of a chat is in `audio_units`."""
        return NO_USAGE

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        """The error event that ends a stream which cannot continue."""
        return error_event(encode({"error": {"message": message, "type": kind, "param": param, "code": code}}))

    # -- internals ---------------------------------------------------------------------------------------------------

    def _hold(self, buffer: bytes) -> bytes:
        if len(buffer) <= HOLD_LIMIT:
            self._held = buffer
            return b""
        self._held, self._oversized, self._tail = b"", True, buffer[-TAIL_LIMIT:]
        self.started = True
        self._count_text(buffer)
        self._open = open_member(buffer)
        return buffer

    def _feed_oversized(self, data: bytes) -> bytes:
        joined = self._tail[-3:] + data
        match = BOUNDARY.search(joined)
        if match is None:
            self._tail = (self._tail + data)[-TAIL_LIMIT:]
            self._count_rest(data)
            return data
        end = max(match.end() - len(self._tail[-3:]), 0)
        tail = (self._tail + data[:end])[-TAIL_LIMIT:]
        self._count_rest(data[:end])
        self._oversized, self._tail, self._open = False, b"", ""
        if self.choices == 1 and _FINISH.search(tail):
            self._finished.add(0)
        hits = list(_USAGE_AT.finditer(tail))
        if hits:
            self.usage = newer(self.usage, usage_at(tail, hits[-1].end()))
        return data[:end] + self.feed(data[end:])

    def _events(self, events: bytes) -> bytes:
        """Scan complete events; returns those that may be sent on."""
        self._count_text(events)
        if self.started and self.choices == 1 and events.find(b"\n") + 2 == len(events) and _is_plain_line(events):
            return events
        passed: list[bytes] = []
        position = 0
        while not (self.started or self._ended()) and position < len(events):
            end = next_boundary(events, position)
            passed.append(self._inspect(events[position:end]))
            position = end
        if position < len(events) and not self._ended():
            left = events[position:] if position else events
            plain, rest = _plain_head(left) if self.choices == 1 else (b"", split_events(left))
            if not (rest or position):
                return plain
            passed.append(plain)
            for event in rest:
                passed.append(self._inspect(event))
                if self._ended():
                    break
        return b"".join(passed)

    def _ended(self) -> bool:
        return self.done or self.error is not None

    def _inspect(self, event: bytes) -> bytes:
        """Parse one event; returns the bytes to send on now for it."""
        data = event_data(event).strip()
        if not data:
            self.error = named_error(event)
            return event if self.error is None else b""
        if data == b"[DONE]":
            self.done, self._terminal, self.started = True, event, self.started or self._chunked
            return b""
        try:
            chunk = read_typed(_chunk, data)
        except (msgspec.DecodeError, ValueError, RecursionError):
            self.error = unreadable_error(event, data)
            return event if self.error is None else b""
        choices = chunk.choices or ()
        answered = chunk.choices is not None or present(chunk.usage)
        if chunk.is_error(answered):
            self.error = data
        elif any(map(_has_failed, choices)):
            self.error = error_of_choices(data)
        else:
            self.error = named_error(event)
        if self.error is not None:
            return b""
        self._read_choices(choices, chunk.usage)
        if choices:
            whole = all(present(choice.message) and not present(choice.delta) for choice in choices)
            return _in_chunks(data) if whole else event
        if present(chunk.usage) and self.drop_usage:
            return b""
        return event if chunk.choices is not None else _with_choices(event, data)

    def _read_choices(self, choices: Sequence[_Choice], usage: msgspec.Raw) -> None:
        self._chunked = self._chunked or bool(choices)
        for position, choice in enumerate(choices):
            if choice.finish_reason:
                self._finished.add(choice.index if isinstance(choice.index, int) else position)
            if not present(usage):
                usage = choice.usage
            self.started = self.started or _says_something(choice)
        if present(usage):
            self.usage = newer(self.usage, parse_chat_usage(usage))

    def _count_text(self, data: bytes) -> None:
        self._uncounted.append(data)
        self._uncounted_size += len(data)
        if self._uncounted_size > UNCOUNTED_LIMIT:
            self._count_now()

    def _count_now(self) -> None:
        pieces, self._uncounted, self._uncounted_size = self._uncounted, [], 0
        data = pieces[0] if len(pieces) == 1 else b"\n".join(pieces)
        self._opaque = self._opaque or are_opaque(data)
        self._units += delta_units(data, self._messages) if b'"message"' in data else text_units(data)
        if b'"audio"' in data:
            audio = sum(map(audio_units, pieces))
            self._units, self._audio = self._units + audio, self._audio + audio
            self._opaque = self._opaque or audio > 0  # its length in bytes tells its tokens only roughly

    def _count_rest(self, data: bytes) -> None:
        """Count bytes that continue an oversized event."""
        text, audio, end = rest_units(self._open, data)
        self._units += text + audio
        self._audio += audio
        if end < len(data):  # that string is over
            self._count_text(data[end:])
            self._open = open_member(data[end:])


def _plain_head(events: bytes) -> tuple[bytes, list[bytes]]:
    """Separate the events at the beginning that need not be read from the others.

    Usually the last events of a stream alone must be.
    """
    last: list[bytes] = []
    end = len(events)
    if events.find(b"\r") < 0:
        while end and len(last) < _LAST_EVENTS:
            start = events.rfind(b"\n\n", 0, end - 2)
            event = events[start + 2 if start >= 0 else 0 : end]
            if _is_plain(event):
                head = events[:end]
                if len(event) == end or _are_like(head, event) or _is_plain(head):
                    return head, last[::-1]
                break
            last.append(event)
            end -= len(event)
    plain, rest = 0, split_events(events)
    while plain < len(rest) and _is_plain(rest[plain]):
        plain += 1
    return b"".join(rest[:plain]), rest[plain:]


def _are_like(events: bytes, last: bytes) -> bool:
    """Whether each event is one line that ends as the last one does, from its finish_reason on, and says no more.

    The last one is plain; servers write all chunks alike. Costs less than `_is_plain` of many events.
    """
    ending = last[max(0, last.rfind(b'"finish_reason"')) :]
    number = events.count(ending + b"data:") + 1
    return (
        events.count(b"\n") == 2 * number
        and events.count(b'"usage"') == number * ending.count(b'"usage"')
        and events.count(b'"error"') == number * ending.count(b'"error"')
        and events.startswith(b"data:")
    )


def _is_plain(events: bytes) -> bool:
    """Whether each event is a chunk with choices that are not finished, and has nothing that must be read.

    For streams of one choice. Plain searches are ten times as fast as one regular expression, and `find` twice as fast
    as `in`.
    """
    if events.find(b"\n") + 2 == len(events):
        return _is_plain_line(events)
    usage, error, running = _SPACED if events.find(b'": ', 0, _SNIFF) >= 0 else _COMPACT
    if events.count(b'"usage"') != events.count(usage) or events.count(b'"error"') != events.count(error):
        return False
    data = events.startswith(b"data:") + events.count(b"\ndata:")
    if events.find(b"\r") >= 0:
        data += events.count(b"\rdata:")
    if events.count(b"\n") != 2 * data and _STRAY_LINE.search(events) is not None:
        return False
    return events.count(running) == data or _are_unfinished(events, data)


def _is_plain_line(event: bytes) -> bool:
    """The same of an event of one line."""
    usage, error, running = _SPACED if event.find(b'": ', 0, _SNIFF) >= 0 else _COMPACT
    at = event.rfind(b'"usage"')
    if at >= 0 and not (event.startswith(usage, at) and event.find(b'"usage"', 0, at) < 0):
        return False
    if event.find(b'"error"') >= 0 and event.count(b'"error"') != event.count(error):
        return False
    if not event.startswith(b"data:") or event.find(b"\r") >= 0:
        return event.startswith(b":")  # a comment
    return event.rfind(running) >= 0 or _are_unfinished(event, 1)


def _are_unfinished(events: bytes, number: int) -> bool:
    """Whether this number of chunks have choices, and none of them ends."""
    if b'"finish_reason":"' in events or b'"finish_reason": "' in events or b'"base_resp"' in events:
        return False
    return events.count(b'"choices":[') + events.count(b'"choices": [') == number


def _says_something(choice: _Choice) -> bool:
    """Whether there is more in a choice than the role."""
    if choice.finish_reason or choice.text:
        return True
    said = [decode(raw) for raw in (choice.delta, choice.message) if present(raw)]
    return any([says_something(delta) if isinstance(delta, dict) else True for delta in said])


def _has_failed(choice: _Choice) -> bool:
    return states(choice.error) or finish_reason(choice.finish_reason) == FAILED


def _in_chunks(data: bytes) -> bytes:
    """A whole completion that came as an event, in chunks."""
    return chunks_of(decode_object(data) or {}, False).removesuffix(DONE)


def _with_choices(event: bytes, data: bytes) -> bytes:
    """A chunk whose choices are missing or null, with an empty list of them: SDKs iterate over it."""
    chunk = decode_object(data)
    return event if chunk is None else b"data: " + encode({**chunk, "choices": []}) + b"\n\n"
