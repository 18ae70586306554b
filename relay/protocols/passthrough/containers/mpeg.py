"""The length of MP3 with its older layers, and of AAC in ADTS, by their frames. Pure.

What a Xing, Info or VBRI header states is not read. Files that follow each other are one to decoders, and here.
"""

from __future__ import annotations

from relay.protocols.passthrough.codecs.mpeg import mpeg_frame
from relay.protocols.passthrough.containers.sound import BYTES_PER_SECOND, STEPS, Seconds, counted, with_rest


def mpeg(content: bytes, start: int) -> Seconds:
    """The frames, and what is between them by its size.

    Of another kind than those before, two frames in a row are frames.
    """
    at = start
    seconds, between, kind = 0.0, 0, -1
    for _ in range(STEPS):
        if at + 7 > len(content):
            break
        size, length = mpeg_frame(content, at)
        if size and (kind in (-1, content[at + 1] & 0xFE) or _is_followed(content, at, size)):
            kind, seconds, at = content[at + 1] & 0xFE, seconds + length, at + size
            continue
        following = content.find(b"\xff", at + 1)
        following = following if following >= 0 else len(content)
        between, at = between + following - at, following
    frames, seconds = seconds, seconds + (between / BYTES_PER_SECOND if seconds else 0.0)
    found = counted(with_rest(seconds, start, at, len(content)))
    return found._replace(least=min(found.least, counted(frames).least))  # what is between may be a tag


def _is_followed(content: bytes, at: int, size: int) -> bool:
    """Whether another frame of its kind follows the one at this place."""
    following = at + size
    same = content[following : following + 1] == b"\xff" and content[following + 1] & 0xFE == content[at + 1] & 0xFE
    return same and mpeg_frame(content, following)[0] > 0


def after_id3(content: bytes) -> int:
    """Where an ID3 tag at the beginning ends, 0 without one."""
    if content[:3] != b"ID3" or len(content) < 10:
        return 0
    size = 0
    for byte in content[6:10]:
        size = size << 7 | byte & 127
    return min(len(content), size + 10 + (10 if content[5] & 16 else 0))


def first_frame(content: bytes) -> tuple[int, float]:
    """The size and the seconds of the first frame of MP3 or of AAC in ADTS; 0 where there is none."""
    return mpeg_frame(content, after_id3(content))
