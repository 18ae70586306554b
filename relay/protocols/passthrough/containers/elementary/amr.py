"""The length of AMR and AMR-WB, by their frames. Pure. Source: RFC 4867, section 5."""

from __future__ import annotations

from typing import Final

from relay.protocols.passthrough.codecs.amr import FRAME, NARROW, WIDE, amr_frames
from relay.protocols.passthrough.containers.sound import STEPS, UNKNOWN, Seconds, counted, with_rest

# The longer marks first, since shorter ones begin as they do.
_KINDS: Final = (
    (b"#!AMR-WB_MC1.0\n", WIDE, True),
    (b"#!AMR_MC1.0\n", NARROW, True),
    (b"#!AMR-WB\n", WIDE, False),
    (b"#!AMR\n", NARROW, False),
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
    frames, at = amr_frames(content, start, len(content), sizes, STEPS)
    return counted(with_rest(frames * FRAME / channels, start, at, len(content)))
