"""The frames of FLAC. Pure. Source: RFC 9639, section 9."""

from __future__ import annotations

import re
from typing import Final

_SYNC: Final = re.compile(rb"\xff[\xf8\xf9][\x10-\xfe]")
_RATES: Final = (0, 88_200, 176_400, 192_000, 8000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)
_INFO: Final = 34  # bytes of a STREAMINFO


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value << 1 ^ 0x07) & 255 if value & 128 else value << 1  # shifted bit by bit
        table.append(value)
    return tuple(table)


_CRC: Final = _crc_table()


def stated_rate(config: bytes) -> int:
    """The samples per second of the STREAMINFO with which metadata begins, with its mark or without; 0: none."""
    at = config.find(b"fLaC")
    info = config[at + 8 if at >= 0 else 4 :] if at >= 0 or len(config) != _INFO else config
    return int.from_bytes(info[10:13], "big") >> 4 if len(info) >= _INFO else 0


def flac_frames(content: bytes, start: int, end: int, usual: int, most: int) -> tuple[float, int]:
    """The seconds of the frames between two places, and up to where they were looked for.

    `usual`: samples per second of STREAMINFO. `most`: places that are looked at.
    """
    seconds = 0.0
    for step, match in enumerate(_SYNC.finditer(content, start, end)):
        if step == most:
            return seconds, match.start()
        seconds += _frame(content, match.start(), usual)
    return seconds, end


def _frame(content: bytes, at: int, usual: int) -> float:
    """The seconds of the frame at this place, 0 where there is none.

    A decoder goes by one of the rates of the frame and of STREAMINFO: the lower one counts.
    """
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
    stated = stated or (_RATES[rate] if rate < len(_RATES) else 0)
    per_second = min(stated, usual) if stated and usual else stated or usual
    return block / per_second if per_second else 0.0
