"""Server-sent events as bytes. A chat stream passes through unchanged; a side scanner on the same bytes finds usage, errors and the end.

Nothing here decodes an event that need not be changed: one regular expression runs over each buffer, and only events that it hits are parsed.
"""

from __future__ import annotations

import re
from typing import Final

# A line ends with CR LF, LF or CR; an event ends with an empty line. CR LF CR at the end of a buffer is no end yet: its LF may follow.
_EOL: Final = rb"(?:\r\n|\n|\r(?!\n))"
BOUNDARY: Final = re.compile(_EOL + rb"(?:\r\n|\n)|\r\r(?!\n)")
_LINE: Final = re.compile(_EOL)
DATA_LINE: Final = re.compile(rb"(?:^|[\r\n])data:")


def event_data(event: bytes) -> bytes:
    """The payload of one event: its `data` lines joined."""
    lines = []
    for line in _LINE.split(event):
        if line.startswith(b"data:"):
            lines.append(line[6:] if line[5:6] == b" " else line[5:])
    return b"\n".join(lines)


def split_events(events: bytes) -> list[bytes]:
    """Whole events, each with the empty line that ends it."""
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


def last_boundary(buffer: bytes) -> int:
    """Where the last whole event ends, 0 when there is none."""
    newest = max(buffer.rfind(b"\n\n"), buffer.rfind(b"\n\r\n"), buffer.rfind(b"\r\r"))
    if newest < 0:
        return 0
    end = 0
    # Search again from a little before the newest candidate, since CR LF CR LF is one boundary and not three.
    for match in BOUNDARY.finditer(buffer, max(newest - 3, 0)):
        end = match.end()
    return end
