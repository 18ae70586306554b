"""The seconds of packets of AAC, by what its decoder is told. Pure. Source: ISO/IEC 14496-3, 1.6.2.1 and 4.5.3.1."""

from __future__ import annotations

from typing import Final

AAC_RATES: Final = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350)
AAC_FRAME: Final = 1024  # samples
_FRAMES: Final = {23: 512, 39: 512, 42: 2048}  # of low delay, enhanced low delay, and the unified codec
_UNTOLD_RATE: Final = (8000, 48_000)  # samples per second that are believed of a container
_LARGEST: Final = 768  # bytes of a frame, for each channel
_CHANNELS: Final = (2, 1, 2, 3, 4, 5, 6, 8)  # by the configuration of channels; 0: described elsewhere

AAC: Final = 0x40  # a kind of objects


def described(stream: bytes) -> tuple[int, bytes]:
    """The kind of objects of a stream as MPEG-4 describes it, and what its decoder is told.

    AAC of which nothing is told, where that is not there.
    """
    at, kind = 0, AAC
    for tag, skipped in ((3, 3), (4, 13), (5, 0)):
        if at >= len(stream) or stream[at] != tag:
            return kind, b""
        size, at = 0, at + 1
        while at < len(stream) and stream[at] & 128:
            size, at = size << 7 | stream[at] & 127, at + 1
        if at + 1 >= len(stream):
            return kind, b""
        size, at = size << 7 | stream[at], at + 1
        if tag == 3 and at + 3 < len(stream):
            flags = stream[at + 2]
            at += (2 if flags & 128 else 0) + (1 + stream[at + 3] if flags & 64 else 0) + (2 if flags & 32 else 0)
        elif tag == 4:
            kind = stream[at]
        elif tag == 5:
            return kind, stream[at : at + size]
        at += skipped
    return kind, b""


class AacPackets:
    """Counts the packets of one stream."""

    def __init__(self, config: bytes, rate: float) -> None:
        """`config`: an AudioSpecificConfig, or nothing. `rate`: samples per second as the container states them.

        Of HE-AAC, the rate is that of its core, whose frames are as long.
        """
        bits, left = int.from_bytes(config[:8].ljust(8, b"\0"), "big"), 64 - 5
        kind = bits >> left
        if kind == 31:
            left -= 6
            kind = 32 + (bits >> left & 63)
        index = bits >> left - 4 & 15
        told: float = AAC_RATES[index] if len(config) >= 2 and index < len(AAC_RATES) else 0
        if len(config) >= 5 and index == 15:
            told = bits >> left - 28 & 0xFFFFFF
            left -= 24
        channels = bits >> left - 8 & 15
        self._largest = _LARGEST * (_CHANNELS[channels] if len(config) >= 2 and channels < len(_CHANNELS) else 2)
        told = told or min(max(rate, _UNTOLD_RATE[0]), _UNTOLD_RATE[1])
        self._frame = _FRAMES.get(kind, AAC_FRAME) / min(max(told, AAC_RATES[-1]), AAC_RATES[0])

    def __call__(self, content: bytes, at: int, size: int) -> float:
        """A packet that is larger than any frame has several, all of which decoders read. How many cannot be told."""
        return self._frame if 0 < size <= self._largest else 0.0
