"""The frames of AMR and AMR-WB. Pure. Source: RFC 4867, section 5."""

from __future__ import annotations

from typing import Final

FRAME: Final = 0.02  # seconds
# Bytes of a frame with its head, by its type. A type that is reserved is taken for a head alone.
NARROW: Final = (13, 14, 16, 18, 20, 21, 27, 32, 6, 1, 1, 1, 1, 1, 1, 1)
WIDE: Final = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1)


def amr_frames(content: bytes, at: int, end: int, sizes: tuple[int, ...], most: int) -> tuple[int, int]:
    """How many frames there are from `at` to `end`, and where the last one ends. `most`: that are looked at."""
    frames, end = 0, min(end, len(content))
    while at < end and frames < most:
        at += sizes[content[at] >> 3 & 15]
        frames += 1
    return frames, min(at, end)
