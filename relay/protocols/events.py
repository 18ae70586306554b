"""Server-sent events one by one, for streams whose events must be understood. `relay.protocols.sse` is for those that pass through."""

from __future__ import annotations

from typing import Final

from relay.protocols.sse import event_data, last_boundary, split_events

LARGEST_EVENT: Final = 64 * 1024 * 1024  # bytes; an image may be in it


class TooLarge(Exception):
    """An event is larger than anything that is meant."""


class EventReader:
    """Feed it what arrives; it returns whole events, as they came."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._tail = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Raises TooLarge."""
        if self._pieces:
            # Only around the seam and in what is new can an event end: what is held has been looked through.
            if last_boundary(self._tail + data) == 0 and not _may_end(self._tail + data):
                return self._hold(data)
            data = b"".join((*self._pieces, data))
            self._pieces, self._size, self._tail = [], 0, b""
        end = len(data) if data.endswith(b"\n\n") else last_boundary(data)
        if end < len(data):
            self._hold(data[end:])
        return [event for event in split_events(data[:end]) if event.strip()] if end else []

    def finish(self) -> list[bytes]:
        """The connection has ended: what was held, when it is an event whose last empty line is missing."""
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
    """The data of an event without white space around it; empty for comments."""
    return event_data(event).strip()


def typed_event(kind: str, data: bytes) -> bytes:
    """An event with its name, as the Responses API writes them."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)
