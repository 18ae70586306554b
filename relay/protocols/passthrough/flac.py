"""The length of FLAC, by its frames. Pure. Source: RFC 9639, section 9."""

from __future__ import annotations

import re
import struct
from typing import Final

from relay.protocols.passthrough.sound import (
    LEAST_RATE,
    PARTS,
    STEPS,
    UNKNOWN,
    Seconds,
    believed,
    byte_rate,
    counted,
    guessed,
    with_rest,
)

_COMPRESSED: Final = (0.4, 0.9)  # of the size of its samples that FLAC has usually, and at most
_SYNC: Final = re.compile(rb"\xff[\xf8\xf9][\x10-\xfe]")
_RATES: Final = (0, 88_200, 176_400, 192_000, 8000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value << 1 ^ 0x07) & 255 if value & 128 else value << 1  # shifted bit by bit
        table.append(value)
    return tuple(table)


_CRC: Final = _crc_table()


def flac(content: bytes, start: int) -> Seconds:
    """`start`: where its mark is. What STREAMINFO states is believed only where no frame is found."""
    start += 4
    packed = int.from_bytes(content[start + 14 : start + 22], "big")
    samples, channels, bits = packed >> 44, (packed >> 41 & 7) + 1, (packed >> 36 & 31) + 1
    for _ in range(PARTS):  # blocks of metadata
        (head,) = struct.unpack_from(">I", content, start)
        start += 4 + (head & 0xFFFFFF)
        if head >> 31:
            break
    seconds, at = 0.0, len(content)
    for step, match in enumerate(_SYNC.finditer(content, start)):
        if step == STEPS:
            at = match.start()
            break
        seconds += _frame(content, match.start(), samples)
    if seconds:
        return counted(with_rest(seconds, start, at, len(content)))
    rate, size = byte_rate(samples, channels, bits), max(0, len(content) - start)
    if not rate:
        return UNKNOWN
    usual, most = _COMPRESSED
    stated = (packed & 0xFFFFFFFFF) / samples
    length = believed(stated, size / (most * rate), size / LEAST_RATE, size / (usual * rate))
    return guessed(length, size, most * rate)


def _frame(content: bytes, at: int, usual: int) -> float:
    """The seconds of the frame at this place, 0 where there is none. `usual`: samples per second of STREAMINFO."""
    codes, first = content[at + 2], content[at + 4 : at + 5]
    size, rate = codes >> 4, codes & 15
    if rate == 15 or not first:
        return 0.0
    number = first[0]
    end = at + 5 + (0 if number < 0x80 else max(0, f"{number:08b}".find("0") - 1) if number < 0xFF else 0)
    extra = {6: 1, 7: 2}.get(size, 0)
    block = 1 + int.from_bytes(content[end : end + extra], "big") if extra else 0
    end += extra
    more = {12: 1, 13: 2, 14: 2}.get(rate, 0)
    stated = int.from_bytes(content[end : end + more], "big") * {12: 1000, 13: 1, 14: 10}.get(rate, 0)
    end += more
    crc = 0
    for byte in content[at:end]:
        crc = _CRC[crc ^ byte]
    if content[end : end + 1] != bytes([crc]):
        return 0.0
    block = block or (192 if size == 1 else 576 << size - 2 if size < 6 else 256 << size - 8)
    per_second = stated or (_RATES[rate] if rate < len(_RATES) else 0) or usual
    return block / per_second if per_second else 0.0
