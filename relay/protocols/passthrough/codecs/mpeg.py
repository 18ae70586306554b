"""The frames of MP3 with its older layers, and of AAC in ADTS. Pure. Source: ISO/IEC 11172-3, 13818-3 and 13818-7."""

from __future__ import annotations

from typing import Final

from relay.protocols.passthrough.codecs.aac import AAC_FRAME, AAC_RATES

_RATES: Final = (44_100, 48_000, 32_000)
_KBITS: Final = {  # by MPEG-1 or a later version, and layer
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_HEAD: Final = 7  # bytes


def mpeg_frame(content: bytes, at: int) -> tuple[int, float]:
    """The size and the seconds of the frame at this place; 0 where there is none."""
    if content[at : at + 1] != b"\xff" or at + _HEAD > len(content):
        return 0, 0.0
    first, second = content[at + 1], content[at + 2]
    if first & 0xE0 != 0xE0:
        return 0, 0.0
    version, layer = first >> 3 & 3, 4 - (first >> 1 & 3)  # version 3 is MPEG-1, 2 is MPEG-2, 0 is MPEG-2.5
    if layer == 4:  # ADTS
        if first & 0xF0 != 0xF0 or second >> 2 & 15 >= len(AAC_RATES):
            return 0, 0.0
        size = (content[at + 3] & 3) << 11 | content[at + 4] << 3 | content[at + 5] >> 5
        frames = (content[at + 6] & 3) + 1
        return (size, AAC_FRAME * frames / AAC_RATES[second >> 2 & 15]) if size >= _HEAD else (0, 0.0)
    if version == 1 or second >> 4 in (0, 15) or second >> 2 & 3 == 3:
        return 0, 0.0
    old = version == 3
    rate = _RATES[second >> 2 & 3] >> (0 if old else 1 if version == 2 else 2)
    samples = 384 if layer == 1 else 1152 if layer == 2 or old else 576
    bits = _KBITS[1 if old else 2, layer][second >> 4] * 1000
    slot = 4 if layer == 1 else 1
    return (samples // 8 // slot * bits // rate + (second >> 1 & 1)) * slot, samples / rate


def mpeg_packet(content: bytes, at: int, size: int) -> float:
    """The seconds of the frames in a packet; 0: it does not begin with one."""
    seconds, end = 0.0, at + size
    while at < end:
        length, frame = mpeg_frame(content, at)
        if not length:
            break
        seconds, at = seconds + frame, at + length
    return seconds
