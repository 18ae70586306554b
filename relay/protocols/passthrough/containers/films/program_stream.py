"""The length of the sound in MPEG program streams and transport streams, by the frames in their packets. Pure.

Source: ISO/IEC 13818-1, 2.4 and 2.5. Which stream is sound is told by what it holds; what can be none is left out only
where the stream says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from relay.protocols.passthrough.containers.elementary.frames import frames_in
from relay.protocols.passthrough.containers.sound import UNKNOWN, Seconds, longest, uncounted

MARK: Final = b"\x00\x00\x01\xba"
_START: Final = re.compile(rb"\x00\x00\x01[\xb9-\xff]")
_PACK, _SYSTEM, _PRIVATE, _SILENT = 0xBA, 0xBB, 0xBD, (0xB9, 0xBC, 0xBE, 0xBF, 0xF0, 0xF1, 0xF2, 0xF8, 0xFF)
_FILM: Final = range(0xE0, 0xF0)
_SAMPLES: Final = range(0xA0, 0xB0)  # streams within the private one
_PICTURES: Final = range(0x20, 0x40)  # subtitles in it
_FRAMES: Final = range(0x80, 0xD0)
_BYTES: Final = 4  # at the beginning of private packets, of what they hold; of samples three more
_SAMPLE_RATES: Final = (48_000, 96_000, 44_100, 32_000)
_SAMPLE_BITS: Final = (16, 20, 24, 16)


def program_stream(content: bytes, start: int) -> Seconds:
    """`start`: where it begins."""
    pieces, formats = dict[int, list[bytes]](), dict[int, float]()
    for kind, body in _packets(content, start):
        if kind != _PRIVATE:
            pieces.setdefault(kind, []).append(body)
            continue
        inner = body[0] if body else 0
        if inner in _SAMPLES and len(body) > 7:
            form = body[5]
            bits = _SAMPLE_BITS[form >> 6]
            formats[inner] = _SAMPLE_RATES[form >> 4 & 3] * ((form & 7) + 1) * bits / 8
            pieces.setdefault(inner, []).append(body[7:])
        elif inner not in _PICTURES:
            pieces.setdefault(inner, []).append(body[_BYTES:] if inner in _FRAMES else body)
    return longest(_stream(kind, b"".join(parts), formats.get(kind, 0.0)) for kind, parts in pieces.items())


def _packets(content: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """The kinds of packets, and what they hold."""
    at = start
    while (found := _START.search(content, at)) is not None:
        kind, at = content[found.end() - 1], found.end()
        if kind in (_PACK, _SYSTEM, *_SILENT):
            continue
        size = int.from_bytes(content[at : at + 2], "big")
        end = at + 2 + size if size else len(content)
        yield kind, pes_body(content, at + 2, min(end, len(content)))
        at = min(end, len(content))


def pes_body(content: bytes, at: int, end: int) -> bytes:
    """What a packet holds, whose head goes on at `at`."""
    if at < end and content[at] >> 6 == 2 and at + 3 <= end:  # MPEG-2
        return content[at + 3 + content[at + 2] : end]
    while at < end and content[at] == 0xFF:  # MPEG-1: stuffing, a size of buffers, and times
        at += 1
    if at < end and content[at] >> 6 == 1:
        at += 2
    if at < end:
        at += {2: 5, 3: 10}.get(content[at] >> 4, 1)
    return content[at:end]


def _stream(kind: int, data: bytes, rate: float) -> Seconds:
    found = frames_in(data, 0, len(data))
    if rate:
        size = len(data) / rate
        return longest((found, Seconds(size, size * 0.9, size * 1.1)))
    if found.length:
        return found
    return UNKNOWN if kind in _FILM or not data else uncounted(len(data))
