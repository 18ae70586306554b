"""The seconds of packets of Apple Lossless. Pure. Source: Apple's description of its magic cookie."""

from __future__ import annotations

import struct
from typing import Final

_COOKIE: Final = struct.Struct(">I16xI")  # the samples of a frame, and the samples per second
_MOST_FRAME: Final = 16_384  # samples


def alac_packet(config: bytes, rate: float) -> float:
    """The seconds of each packet; 0 where the cookie makes no sense. `rate`: as the container states it.

    `config`: the cookie, alone or in its box.
    """
    at = config.rfind(b"alac")
    cookie = config[at + 8 :] if at >= 0 else config
    if len(cookie) < _COOKIE.size:
        return 0.0
    frame, stated = _COOKIE.unpack_from(cookie)
    rates = [value for value in (stated, rate) if value > 0]
    return frame / min(rates) if rates and 0 < frame <= _MOST_FRAME else 0.0
