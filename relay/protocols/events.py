"""Splits a byte stream into server-sent events, for streams whose events are decoded. Pure.

`relay.protocols.sse` is for streams that pass through.
"""

from __future__ import annotations

from typing import Final

from relay.protocols.sse import event_data, last_boundary, split_events

LARGEST_EVENT: Final = 64 * 1024 * 1024  # bytes; an event may contain an image


UNREADABLE: Final = (
    b'{"error":{"message":"The upstream sent a piece of its answer that cannot be read. Try again.",'
    b'"type":"server_error","param":null,"code":"upstream_error"}}'
)
# The error objects of a stream whose last event cannot be read, and of one that has failed without saying why.
UNREADABLE_END: Final = (
    b'{"error":{"message":"The upstream ended its answer with an event that cannot be read.","type":"server_error",'
    b'"param":null,"code":"upstream_error"}}'
)
# The error of an answer without anything in it.
NOTHING_MADE: Final = (
    b'{"error":{"message":"The upstream ended its answer without saying anything. Try again.","type":"server_error",'
    b'"param":null,"code":"upstream_error"}}'
)
FAILED: Final = b'{"error":{"message":"The upstream failed.","code":"upstream_error"}}'


class TooLarge(Exception):
    """An event is larger than LARGEST_EVENT."""


class Unreadable(Exception):
    """An upstream's answer, or a piece of it, has content that cannot be read: going on without it would hide that."""


class EventReader:
    """Buffers the bytes that arrive and returns complete events, unchanged."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._tail = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The events that these bytes complete. Raises TooLarge."""
        if self._pieces:
            # An event can end only at the seam or in the new bytes: the buffered ones have been searched already.
            if last_boundary(self._tail + data) == 0 and not _may_end(self._tail + data):
                return self._hold(data)
            data = b"".join((*self._pieces, data))
            self._pieces, self._size, self._tail = [], 0, b""
        end = len(data) if data.endswith(b"\n\n") else last_boundary(data)
        if end < len(data):
            self._hold(data[end:])
        return [event for event in split_events(data[:end]) if event.strip()] if end else []

    def finish(self) -> list[bytes]:
        """The connection was closed: returns the buffered event, whose last empty line is missing."""
        held = b"".join(self._pieces)
        self._pieces, self._size, self._tail = [], 0, b""
        return [held] if held.strip() else []

    def _hold(self, data: bytes) -> list[bytes]:
        self._pieces.append(data)
        self._size += len(data)
        self._tail = (self._tail + data)[-3:]
        if self._size > LARGEST_EVENT:
            raise TooLarge
        return []


def _may_end(seam: bytes) -> bool:
    return seam.endswith((b"\n\n", b"\r\r"))


def payload(event: bytes) -> bytes:
    """The data of an event, stripped of white space; empty for comments."""
    return event_data(event).strip()


def typed_event(kind: str, data: bytes) -> bytes:
    """A named event, as the Responses API writes them."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)
