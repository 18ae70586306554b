"""Whether the edit list of a track in MP4 has it play a part more than once. Pure. Source: ISO/IEC 14496-12, 8.6.6."""

from __future__ import annotations

import struct
from typing import Final

from relay.protocols.passthrough.containers.boxes import Box, boxes

_MOST_EDITS: Final = 16  # of a recording that was put together
_SLACK: Final = 1.05


def is_repeated(content: bytes, track: Box, leaves: dict[bytes, Box], movie_scale: int) -> bool:
    """Whether more is played than the track has, or it is so cut up that this cannot be told.

    `leaves`: its other boxes. `movie_scale`: the units per second of the movie's clock.
    """
    edits = list[tuple[int, int]]()
    for box in boxes(content, track.begin, track.end):
        if box.name == b"edts":
            for leaf in boxes(content, box.begin, box.end):
                if leaf.name == b"elst":
                    edits += _edits(content, leaf)
    if len(edits) < 2:
        return False
    head = leaves.get(b"mdhd")
    at = head.begin + (20 if content[head.begin] else 12) if head is not None else 0
    scale = int.from_bytes(content[at : at + 4], "big") if head is not None else 0
    length = _length(content, leaves.get(b"stts"))
    if len(edits) > _MOST_EDITS or not (scale and length and movie_scale):
        return True
    played = sum(min(duration * scale / movie_scale, max(0, length - time)) for duration, time in edits)
    return played > _SLACK * length


def _edits(content: bytes, box: Box) -> list[tuple[int, int]]:
    """The durations and the beginnings of what is played, without pauses, and not all where there are very many."""
    version = content[box.begin]
    entry = struct.Struct(">Qq4x" if version else ">Ii4x")
    (count,) = struct.unpack_from(">I", content, box.begin + 4)
    found = list[tuple[int, int]]()
    for number in range(min(count, 4 * _MOST_EDITS)):
        at = box.begin + 8 + number * entry.size
        if at + entry.size > box.end:
            break
        duration, time = entry.unpack_from(content, at)
        if time >= 0:
            found.append((duration, time))
    return found


def _length(content: bytes, box: Box | None) -> int:
    """The units of all samples by the table of their times."""
    if box is None:
        return 0
    (count,) = struct.unpack_from(">I", content, box.begin + 4)
    values = struct.iter_unpack(
        ">II", content[box.begin + 8 : box.begin + 8 + 8 * min(count, (box.end - box.begin - 8) // 8)]
    )
    return sum(number * delta for number, delta in values)
