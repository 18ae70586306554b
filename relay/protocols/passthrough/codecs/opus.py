"""The seconds of Opus packets. Pure. Source: RFC 6716, section 3.1."""

from __future__ import annotations

from typing import Final

_MILLISECONDS: Final = (10, 20, 40, 60) * 3 + (10, 20) * 2 + (2.5, 5, 10, 20) * 4  # of a frame, by its configuration
_MOST: Final = 120.0  # milliseconds
_HEADERS: Final = (b"OpusHead", b"OpusTags")


def opus_packet(content: bytes, at: int, size: int) -> float:
    """The seconds of the packet of so many bytes at this place. 0: there is none, or it is a header."""
    if size < 1 or at >= len(content) or content.startswith(_HEADERS, at):
        return 0.0
    frames = (1, 2, 2, 0)[content[at] & 3] or int.from_bytes(content[at + 1 : at + 2], "big") & 63
    return min(_MOST, frames * _MILLISECONDS[content[at] >> 3]) / 1000
