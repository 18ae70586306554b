"""The length of FLAC files, by their frames. Pure. Source: RFC 9639."""

from __future__ import annotations

from relay.protocols.passthrough.codecs.flac import flac_frames, stated_rate
from relay.protocols.passthrough.containers.sound import STEPS, Seconds, counted, uncounted, with_rest


def flac(content: bytes, start: int) -> Seconds:
    """`start`: where its mark is. What STREAMINFO states is not believed: files without frames are not read.

    Files that follow each other are one to decoders, and here.
    """
    usual = stated_rate(content[start : start + 42])
    seconds, at = flac_frames(content, start, len(content), usual, STEPS)
    if seconds:
        return counted(with_rest(seconds, start, at, len(content)))
    return uncounted(len(content) - start)
