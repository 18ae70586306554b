"""The seconds of Vorbis packets, by the blocks of their modes. Pure. Source: Vorbis I specification, 4.2 and 4.3.1.

Where the modes cannot be found, each packet counts as a long block. They stand behind what only a decoder reads, and
something else can stand behind them: packets that would take far longer as long blocks are not counted.
"""

from __future__ import annotations

import struct
from typing import Final

_HIGHEST_RATE: Final = 384_000  # samples per second that are no mistake
_IDENTIFICATION, _SETUP = b"\x01vorbis", b"\x05vorbis"
_MODE: Final = 41  # bits: of a long block, the kinds of window and transform, which are 0, and a mapping
_MOST_MODES: Final = 64
_MOST_SHORT: Final = 3.0  # times the seconds, if all blocks were long
_ENOUGH: Final = 500  # packets by which that is told
_TAIL: Final = 400  # bytes at the end of the setup in which all modes are


class VorbisPackets:
    """Counts the packets of one stream."""

    def __init__(self, headers: bytes) -> None:
        """`headers`: those of the stream, or as many as there are yet."""
        self._blocks, self._rate, self._long, self._before = (0, 0), 0, list[int](), 0
        self._number, self._units = 0, 0  # of the packets so far, and of what they take
        self.learn(headers)

    def learn(self, headers: bytes) -> None:
        at = headers.find(_IDENTIFICATION)
        if at >= 0 and len(headers) >= at + 29:
            (self._rate,) = struct.unpack_from("<I", headers, at + 12)
            self._blocks = (1 << (headers[at + 28] & 15), 1 << (headers[at + 28] >> 4))
        at = headers.rfind(_SETUP)
        if at >= 0:
            self._long = _modes(headers[at:])

    def __call__(self, content: bytes, at: int, size: int) -> float:
        if size < 1 or at >= len(content) or not 0 < self._rate <= _HIGHEST_RATE:
            return 0.0
        first = content[at]
        if first & 1:  # a header
            return 0.0
        count = len(self._long)
        mode = first >> 1 & (1 << (count - 1).bit_length()) - 1 if count > 1 else 0
        block = self._blocks[self._long[mode] if mode < count else 1]
        before, self._before = self._before or block, block
        self._number, self._units = self._number + 1, self._units + before + block
        if self._number > _ENOUGH and 2 * self._blocks[1] * self._number > _MOST_SHORT * self._units:
            return -1.0
        return (before + block) / 4 / self._rate


def _modes(setup: bytes) -> list[int]:
    """Of each mode, whether its block is long. They stand at the end of the setup, and are read backwards from there.

    Their count stands before them: where it fits, they begin. As in FFmpeg's parser.
    """
    tail = setup[-_TAIL:]
    bits = int.from_bytes(tail, "little")
    end = bits.bit_length() - 1  # the framing bit is the last one that is set
    found = 0
    for count in range(1, _MOST_MODES + 1):
        start = end - count * _MODE
        if start < 6:
            break
        mode = bits >> start
        if mode >> 1 & 0xFFFFFFFF or mode >> 33 & 255 >= _MOST_MODES:
            break
        if bits >> start - 6 & 63 == count - 1:
            found = count
    return [bits >> end - (found - index) * _MODE & 1 for index in range(found)]
