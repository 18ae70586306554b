"""The frames of AC-3, E-AC-3 and DTS. Pure. Source: ETSI TS 102 366, 4.3 and annex E; ETSI TS 102 114, 5.3."""

from __future__ import annotations

from typing import Final

_AC3, _DTS = b"\x0b\x77", b"\x7f\xfe\x80\x01"
_RATES: Final = (48_000, 44_100, 32_000)
_KBITS: Final = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_BLOCK: Final = 256  # samples
_BLOCKS: Final = (1, 2, 3, 6)
_DTS_RATES: Final = {
    1: 8000, 2: 16_000, 3: 32_000, 6: 11_025, 7: 22_050, 8: 44_100, 11: 12_000, 12: 24_000, 13: 48_000
}  # fmt: skip


def dolby_packet(content: bytes, at: int, size: int) -> float:
    """The seconds of the frames of AC-3 or E-AC-3 in a packet, which is searched for them; 0: there are none."""
    seconds, end = 0.0, min(at + size, len(content))
    at = content.find(_AC3, at, end)
    while at >= 0:
        length, frame = dolby_frame(content, at)
        seconds += frame
        at = content.find(_AC3, at + max(length, len(_AC3)), end)
    return seconds


def dolby_frame(content: bytes, at: int) -> tuple[int, float]:
    """The size and the seconds of the frame at this place; 0 where there is none."""
    if not content.startswith(_AC3, at) or at + 6 > len(content):
        return 0, 0.0
    codes, version = content[at + 4], content[at + 5] >> 3
    rate = codes >> 6
    if version > 10:  # E-AC-3
        kind, length = content[at + 2] >> 6, 2 * ((content[at + 2] & 7) << 8 | content[at + 3]) + 2
        if rate == 3:
            lower = codes >> 4 & 3
            seconds = 6 * _BLOCK * 2 / _RATES[lower] if lower < 3 else 0.0
        else:
            seconds = _BLOCKS[codes >> 4 & 3] * _BLOCK / _RATES[rate]
        return length, 0.0 if kind == 1 else seconds  # 1: more channels of the frame before
    if rate == 3 or (codes & 63) >> 1 >= len(_KBITS):
        return 0, 0.0
    samples, bits = 6 * _BLOCK, _KBITS[(codes & 63) >> 1] * 1000
    length = 2 * (samples * bits // 16 // _RATES[rate] + (codes & 1 if rate == 1 else 0))
    return length, samples / (_RATES[rate] >> max(0, version - 8))


def dts_packet(content: bytes, at: int, size: int) -> float:
    """The seconds of the frames of DTS in a packet; 0: none is found. What extends a frame takes no time."""
    seconds, end = 0.0, min(at + size, len(content))
    at = content.find(_DTS, at, end)
    while at >= 0:
        length, frame = dts_frame(content, at)
        seconds += frame
        at = content.find(_DTS, at + max(length, len(_DTS)), end)
    return seconds


def dts_frame(content: bytes, at: int) -> tuple[int, float]:
    """The size and the seconds of the frame at this place, as DTS has them in bytes; 0 where there is none."""
    if not content.startswith(_DTS, at) or at + 12 > len(content):
        return 0, 0.0
    bits = int.from_bytes(content[at + 4 : at + 12], "big")
    blocks, length, rate = (bits >> 50 & 127) + 1, (bits >> 36 & 0x3FFF) + 1, _DTS_RATES.get(bits >> 26 & 15)
    return (length, 32 * blocks / rate) if rate is not None and length > 12 else (0, 0.0)
