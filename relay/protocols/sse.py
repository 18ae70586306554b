"""Finds the boundaries and the data of server-sent events in bytes, without decoding them. Pure."""

from __future__ import annotations

import re
from typing import Final

# A line ends with CR LF, LF or CR; an event ends with an empty line. CR LF CR at the end of a buffer does not end an
# event yet: its LF may follow.
_EOL: Final = rb"(?:\r\n|\n|\r(?!\n))"
BOUNDARY: Final = re.compile(_EOL + rb"(?:\r\n|\n)|\r\r(?!\n)")
_LINE: Final = re.compile(_EOL)
DATA_LINE: Final = re.compile(rb"(?:^|[\r\n])data:")


_STREAM: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?::|(?:data|event|id|retry)[ ]?:)")


def is_stream(body: bytes) -> bool:
    """Whether a body begins as a stream of events does."""
    return _STREAM.match(body) is not None


def event_data(event: bytes) -> bytes:
    """The payload of one event: its `data` lines joined."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and event.find(b"\r") < 0:  # nearly all
        return event[6:-2]
    lines = []
    for line in _LINE.split(event):
        if line.startswith(b"data:"):
            lines.append(line[6:] if line[5:6] == b" " else line[5:])
    return b"\n".join(lines)


def split_events(events: bytes) -> list[bytes]:
    """Split bytes into events, each with the empty line that ends it."""
    if b"\r" not in events:
        parts = events.split(b"\n\n")
        last = parts.pop()
        found = [part + b"\n\n" for part in parts]
        return [*found, last] if last else found
    found, position = [], 0
    for match in BOUNDARY.finditer(events):
        found.append(events[position : match.end()])
        position = match.end()
    if position < len(events):
        found.append(events[position:])
    return found


def next_boundary(events: bytes, start: int) -> int:
    """The position after the event that begins at `start`; the end of the bytes when they contain no boundary."""
    if b"\r" not in events:
        found = events.find(b"\n\n", start)
        return found + 2 if found >= 0 else len(events)
    match = BOUNDARY.search(events, start)
    return match.end() if match is not None else len(events)


def last_boundary(buffer: bytes) -> int:
    """The position after the last complete event; 0 when there is none."""
    newest = max(buffer.rfind(b"\n\n"), buffer.rfind(b"\n\r\n"), buffer.rfind(b"\r\r"))
    if newest < 0:
        return 0
    end = 0
    # Search again from shortly before the newest candidate, since CR LF CR LF is one boundary and not three.
    for match in BOUNDARY.finditer(buffer, max(newest - 3, 0)):
        end = match.end()
    return end
