"""The length of the sound in MPEG transport streams, by the frames in their packets. Pure.

Source: ISO/IEC 13818-1, 2.4. Which stream is sound is told by what it holds. One that cannot be counted is left out
only where it is said to be none.
"""

from __future__ import annotations

from typing import Final

from relay.protocols.passthrough.containers.elementary.frames import frames_in
from relay.protocols.passthrough.containers.films.program_stream import pes_body
from relay.protocols.passthrough.containers.sound import UNKNOWN, Seconds, longest, uncounted

_SYNC, _PACKET = 0x47, 188
_LAYOUTS: Final = ((188, 0), (192, 4), (204, 0))  # bytes from packet to packet, and before each
_IN_A_ROW: Final = 3
_START: Final = b"\x00\x00\x01"
_FILM: Final = range(0xE0, 0xF0)  # kinds of packets
# Kinds of streams that are film or data, by the table of a program; descriptors of private ones that are subtitles.
_SILENT: Final = frozenset((0x01, 0x02, 0x05, 0x08, 0x0A, 0x0B, 0x0C, 0x0D, 0x10, 0x1B, 0x20, 0x21, 0x24, 0x33, 0x42,
                            0x86, 0x90, 0x91, 0x92, 0xD1, 0xEA))  # fmt: skip
_PRIVATE, _SUBTITLES = 0x06, frozenset((0x46, 0x56, 0x59))


def layout(content: bytes) -> tuple[int, int]:
    """The bytes from packet to packet, and those before each; 0 where it is no transport stream."""
    for step, before in _LAYOUTS:
        places = range(before, before + step * _IN_A_ROW, step)
        if len(content) >= places[-1] + _PACKET - before and all(content[at] == _SYNC for at in places):
            return step, before
    return 0, 0


def transport_stream(content: bytes) -> Seconds:
    step, before = layout(content)
    pieces, kinds, silent = dict[int, list[bytes]](), dict[int, int](), set[int]()
    following = before
    while (at := following) + _PACKET <= len(content):
        following = at + step
        if content[at] != _SYNC:
            following = _next(content, at + 1, step)
            continue
        pid, flags = int.from_bytes(content[at + 1 : at + 3], "big"), content[at + 3]
        body, end = at + 4, at + _PACKET
        if flags & 0x20:
            body += 1 + content[body]
        if not flags & 0x10 or body >= end:
            continue
        begins, pid = pid >> 14 & 1, pid & 0x1FFF
        if begins and content.startswith(_START, body):
            kinds.setdefault(pid, content[body + 3])
            pieces.setdefault(pid, []).append(pes_body(content, body + 6, end))
        elif begins:
            silent |= _silent_in(content[body + 1 + content[body] : end])
        elif pid in pieces:
            pieces[pid].append(content[body:end])
    return longest(_stream(b"".join(parts), pid in silent or kinds[pid] in _FILM) for pid, parts in pieces.items())


def _next(content: bytes, at: int, step: int) -> int:
    """Where the next packet is, behind which another one follows."""
    while (at := content.find(_SYNC, at)) >= 0:
        if content[at + step : at + step + 1] in (b"", bytes([_SYNC])):
            return at
        at += 1
    return len(content)


def _silent_in(table: bytes) -> set[int]:
    """The streams that a table of a program says to be no sound."""
    found = set[int]()
    if len(table) < 12 or table[0] != 2:
        return found
    end = min(len(table), 3 + (int.from_bytes(table[1:3], "big") & 0xFFF) - 4)
    at = 12 + (int.from_bytes(table[10:12], "big") & 0xFFF)
    while at + 5 <= end:
        kind, pid = table[at], int.from_bytes(table[at + 1 : at + 3], "big") & 0x1FFF
        length = int.from_bytes(table[at + 3 : at + 5], "big") & 0xFFF
        tags, inner = set[int](), at + 5
        while inner + 2 <= min(end, at + 5 + length):
            tags.add(table[inner])
            inner += 2 + table[inner + 1]
        if kind in _SILENT or (kind == _PRIVATE and tags & _SUBTITLES):
            found.add(pid)
        at += 5 + length
    return found


def _stream(data: bytes, is_silent: bool) -> Seconds:
    found = frames_in(data, 0, len(data))
    if found.length:
        return found
    return UNKNOWN if is_silent or not data else uncounted(len(data))
