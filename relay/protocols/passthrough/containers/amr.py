"""The length of AMR and AMR-WB, by their frames. Pure. Source: RFC 4867, section 5."""

from __future__ import annotations

from typing import Final

from relay.protocols.passthrough.sound import STEPS, UNKNOWN, Seconds, counted, with_rest

_FRAME: Final = 0.02  # seconds
# Bytes of a frame with its head, by its type. A type that is reserved is taken for a head alone.
_NARROW: Final = (13, 14, 16, 18, 20, 21, 27, 32, 6, 7, 6, 6, 1, 1, 1, 1)
_WIDE: Final = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 1, 1, 1, 1, 1, 1)
# The longer marks first, since shorter ones begin as they do.
_KINDS: Final = (
    (b"#!AMR-WB_MC1.0\n", _WIDE, True),
    (b"#!AMR_MC1.0\n", _NARROW, True),
    (b"#!AMR-WB\n", _WIDE, False),
    (b"#!AMR\n", _NARROW, False),
)
_MOST_CHANNELS: Final = 6


def amr(content: bytes) -> Seconds:
    """Each frame is 20 ms of one channel."""
    kind = next((kind for kind in _KINDS if content.startswith(kind[0])), None)
    if kind is None:
        return UNKNOWN
    mark, sizes, several = kind
    start, channels = len(mark), 1
    if several:  # a description of the channels follows
        channels = min(max(1, content[start + 3] & 15), _MOST_CHANNELS)
        start += 4
    at, frames, end = start, 0, len(content)
    while at < end and frames < STEPS:
        at += sizes[content[at] >> 3 & 15]
        frames += 1
    return counted(with_rest(frames * _FRAME / channels, start, min(at, end), end))
