"""Passes a stream of the Messages API through unchanged, while a scanner finds usage, errors and the end. Pure.

The first events are decoded, until one says something: what precedes it is held, so that an answer which fails before
it can be tried elsewhere. Later events that need no change are not: a few searches run over each buffer, and only what
they hit is parsed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec

from portal.lib.json import Json, decode_object, encode
from portal.lib.redaction.verbatim import Keep, kept_words
from relay.protocols.anthropic_messages.answer import is_nothing, says_nothing
from relay.protocols.anthropic_messages.errors import error_event, stream_failure
from relay.protocols.anthropic_messages.usage import NO_OUTPUT, parse_messages_usage
from relay.protocols.characters import read_typed
from relay.protocols.codec import EVENT_STREAM, OVERSIZED
from relay.protocols.error_objects import Envelope, named_error, unreadable_error
from relay.protocols.events import NOTHING_MADE
from relay.protocols.sse import event_data, last_boundary, split_events
from relay.protocols.token_estimate import is_opaque, open_member, rest_units, text_units
from relay.protocols.usage import Usage, newer, present

HOLD_LIMIT: Final = 64 * 1024  # bytes of an incomplete event that are held; larger ones pass as they arrive
_LARGEST: Final = 64 * 1024 * 1024  # bytes of an event
UNCOUNTED_LIMIT: Final = 32 * 1024  # bytes of text that are counted at once
# What an event that must be looked at has in it. Content may have it, too: then a look costs time only.
_MARKS: Final = (b"message_", b"error", b"[DONE]")
_KEEP: Final[Keep] = partial(kept_words, accounts=True)
# Errors of the portal's account at the upstream, which are told in the portal's words.
_OWN_CODES: Final = frozenset(("upstream_credentials_exhausted",))


class _Event(Envelope):
    message: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    delta: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()


class _Delta(msgspec.Struct):
    stop_reason: object = None


# A search on the web that begins.
_SEARCH: Final = re.compile(rb'"type"\s*:\s*"server_tool_use"[^{}]*"name"\s*:\s*"web_search"')
_event: Final = msgspec.json.Decoder(_Event)
_message: Final = msgspec.json.Decoder(_Message)
_delta: Final = msgspec.json.Decoder(_Delta)
_members: Final = msgspec.json.Decoder(dict[str, object])


@dataclass(slots=True)
class MessagesStream:
    """The codec of one stream. Feed it the bytes that arrive; send on the bytes it returns."""

    watch_finish: bool = False  # the upstream sends no `message_stop`, and its body may end without proof
    keep: Keep = _KEEP  # what the client reads of an error in the middle
    usage: Usage | None = None  # as the upstream reports it
    error: bytes | None = None  # the upstream's error object, which is not sent on
    failed: bytes | None = None
    done: bool = False  # `message_stop` has arrived
    started: bool = False  # an event with content, or with the reason why it stopped, has been returned
    ending: bytes = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    content_type: str = EVENT_STREAM
    _said: Json = field(default_factory=dict)  # the usage so far
    _units: float = 0.0
    _opaque: bool = False
    _searches: int = 0
    _uncounted: list[bytes] = field(default_factory=list)  # returned, and not yet counted
    _uncounted_size: int = 0
    _held: bytes = b""  # an event whose end has not arrived
    _size: int = 0  # bytes of it that have been returned: it is larger than HOLD_LIMIT
    _open: str = ""  # the kind of string that the bytes so far of that event end in
    _cut: bool = False  # the body ended inside an event
    _clean: bool = False  # the body has ended where its framing says
    _finished: bool = False  # the reason why it stopped has arrived
    _terminal: bytes = b""

    def feed(self, data: bytes) -> bytes:
        """The bytes to send on now: complete events, except for events over 64 KiB."""
        if self.done or self.error is not None:
            return b""
        buffer = self._held + data
        end = len(buffer) if buffer.endswith(b"\n\n") else last_boundary(buffer)
        if end == 0:
            return self._hold(buffer)
        if self._size:  # the end of an event that is passing
            first = split_events(buffer)[0]
            self._held, self._size = b"", 0
            self._count_rest(first)
            return first + self.feed(buffer[len(first) :])
        self._held = buffer[end:]
        return self._events(buffer[:end])

    def _hold(self, buffer: bytes) -> bytes:
        """Keep the beginning of an event, of which all but its last bytes pass when it is large."""
        if not self._size and len(buffer) <= HOLD_LIMIT:
            self._held = buffer
            return b""
        passed, self._held = buffer[:-3], buffer[-3:]
        self._size += len(passed)
        if self._size > _LARGEST:
            self.error = OVERSIZED
            return b""
        self.started = True
        if self._size > len(passed):
            self._count_rest(passed)
        else:
            self._count(passed)
            self._open = open_member(passed)
        return passed

    def finish(self, clean: bool = True) -> bytes:
        """The upstream closed the connection. `clean`: the body's framing says that it ends here."""
        self._clean = clean
        if self.done or self.error is not None:
            return b""
        held, self._held = self._held, b""
        if not held.strip():
            return b""
        if self._size or decode_object(event_data(held)) is None:
            self._cut = True
            return b""
        return self._events(held)

    @property
    def complete(self) -> bool:
        """Whether the stream reached its end: `message_stop`, or the reason why it stopped and a clean end."""
        return self.done or (self._finished and not self._cut and (self._clean or self.watch_finish))

    @property
    def terminal(self) -> bytes:
        """The end marker as the upstream wrote it. It is sent once the usage record is on disk."""
        return self._terminal

    @property
    def mid_event(self) -> bool:
        """Whether the bytes returned so far end inside an oversized event, so that nothing may be inserted now."""
        return bool(self._size)

    def delivered_units(self) -> float:
        self._count_now()
        return self._units

    def audio_units(self) -> float:
        """None: the API has no audio."""
        return 0.0

    def is_opaque(self) -> bool:
        self._count_now()
        return self._opaque

    def media(self) -> Usage:
        """Searches: the API makes no images and no speech."""
        self._count_now()
        return Usage(searches=self._searches)

    def failure(self, message: str, kind: str, code: str | None, param: str | None) -> bytes:
        """The error event that ends the stream: the upstream's own, without secrets, where it sent one."""
        found = decode_object(self.error) if self.error is not None and code not in _OWN_CODES else None
        if found is not None and found.get("type") == "error" and isinstance(found.get("error"), dict):
            kept = self.keep(self.error or b"")
            return error_event(kept.replace(b"\r", b" ").replace(b"\n", b" "))  # JSON: between members only
        return stream_failure(message, kind, code)

    # -- internals ---------------------------------------------------------------------------------------------------

    def _events(self, events: bytes) -> bytes:
        """Scan complete events; returns those that may be sent on."""
        if self.started and _is_plain(events):
            self._count(events)
            return events
        passed: list[bytes] = []
        for event in split_events(events):
            if self.done or self.error is not None:
                break
            if not (self.started and _is_plain(event)):
                event = self._inspect(event)
            passed.append(event)
        out = b"".join(passed)
        self._count(out)
        return out

    def _inspect(self, event: bytes) -> bytes:
        """Parse one event; returns the bytes to send on now for it."""
        data = event_data(event).strip()
        if not data:
            self.error = named_error(event)
            return event if self.error is None else b""
        if data == b"[DONE]":  # no marker of this API, whose clients cannot read it
            self.done, self._terminal = self._finished, self.ending if self._finished else b""
            return b""
        try:
            found = read_typed(_event, data)
        except (msgspec.DecodeError, ValueError, RecursionError):
            self.error = unreadable_error(event, data)
            return event if self.error is None else b""
        kind = bytes(found.type).strip(b'"')
        if kind == b"error" or (not kind and found.is_error(False)):
            self.error = data
            return b""
        if kind == b"message_stop":
            if not self.started:  # there is no block, and no reason why there is none
                self.error = NOTHING_MADE
                return b""
            self.done = True
            self._terminal = event
            return b""
        if kind == b"message_start":
            self._report(_usage_in(found.message), begins=True)
        elif kind == b"message_delta":
            self._report(found.usage)
            reason = _stop_reason(found.delta)
            if reason and not self.started and is_nothing(reason, self._said.get("output_tokens")):
                self.error = NOTHING_MADE
                return b""
            self._finished = self._finished or bool(reason)
            self.started = True
        elif kind.startswith(b"content_block_") and not says_nothing(data):
            self.started = True
        return event

    def _report(self, usage: msgspec.Raw, begins: bool = False) -> None:
        """Take counts over: those of a later event stand for the earlier ones, and null says nothing.

        `begins`: of an answer of which nothing has been made, so that its output counts once the answer ends only.
        """
        if present(usage):
            try:
                said = _members.decode(usage)
            except (msgspec.DecodeError, ValueError, RecursionError):
                return
            self._said.update({name: value for name, value in said.items() if value is not None})
        counted = {**self._said, **NO_OUTPUT} if begins and self._said else self._said
        self.usage = newer(self.usage, parse_messages_usage(encode(counted)))

    def _count(self, data: bytes) -> None:
        self._uncounted.append(data)
        self._uncounted_size += len(data)
        if self._uncounted_size > UNCOUNTED_LIMIT:
            self._count_now()

    def _count_rest(self, data: bytes) -> None:
        """Count bytes that continue a large event."""
        units, _, end = rest_units(self._open, data)
        self._units += units
        if end < len(data):  # the string that was open is over
            self._count(data[end:])
            self._open = open_member(data[end:])

    def _count_now(self) -> None:
        if self._uncounted:
            text = b"".join(self._uncounted)
            self._uncounted, self._uncounted_size = [], 0
            self._units += text_units(text)
            self._opaque = self._opaque or is_opaque(text)
            self._searches += len(_SEARCH.findall(text))


def _is_plain(events: bytes) -> bool:
    """Whether events are whole objects, and say nothing of usage, an error or the end."""
    return events.count(b"\n\n") == events.count(b"}\n\n") > 0 and not any(mark in events for mark in _MARKS)


def _usage_in(message: msgspec.Raw) -> msgspec.Raw:
    try:
        return _message.decode(message).usage
    except (msgspec.DecodeError, ValueError, RecursionError):
        return msgspec.Raw()


def _stop_reason(delta: msgspec.Raw) -> object:
    try:
        return _delta.decode(delta).stop_reason
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
