"""The length of speech that an upstream makes, by its first bytes and its size. Pure."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from typing import Final

from relay.protocols.passthrough.audio import first_frame
from relay.protocols.token_estimate import AUDIO_TOKENS_PER_SECOND
from relay.protocols.usage import NO_USAGE, Usage

HEAD: Final = 16_384  # bytes that are kept to tell the format: a tag with a title may come before the first frame
_SAMPLES: Final = 48_000  # bytes per second of 16-bit samples at 24 kHz, which OpenAI sends without a header
_RATES: Final = ((b"OggS", 4_000), (b"fLaC", 24_000), (b"ID3", 16_000))
_SANE: Final = (1_000, 400_000)  # bytes per second that a header may state


def _rate(head: bytes) -> float:
    """The bytes per second of a sound that begins like this."""
    if head[:4] == b"RIFF" and head[12:16] == b"fmt " and len(head) >= 32:
        stated = struct.unpack_from("<I", head, 28)[0]
        return float(stated) if _SANE[0] <= stated <= _SANE[1] else _SAMPLES
    size, seconds = first_frame(head)
    if size and seconds:
        return size / seconds
    return next((rate for mark, rate in _RATES if head.startswith(mark)), _SAMPLES)


def decoded(text: bytes) -> bytes:
    """The bytes of Base64 that may break off; empty when it is none."""
    text = text.replace(b"\\", b"")
    try:
        return base64.b64decode(text[: len(text) // 4 * 4])
    except binascii.Error:
        return b""


def spoken(head: bytes, size: int, whole: Usage, complete: bool) -> Usage:
    """The usage of speech of `size` bytes, whose tokens nobody reports.

    `whole`: what the text takes when it is spoken. Of an answer that is incomplete, the sound is counted.
    """
    if not size:
        return NO_USAGE
    seconds = size / _rate(head)
    tokens = whole.output if complete else min(whole.output, math.ceil(seconds * AUDIO_TOKENS_PER_SECOND))
    return Usage(output=tokens, audio_output=tokens, milliseconds=math.ceil(seconds * 1000))
