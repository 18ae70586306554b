"""The length of speech that an upstream makes, by its first bytes and its size. Pure."""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Final

from relay.protocols.passthrough.containers.mpeg import first_frame
from relay.protocols.passthrough.containers.samples import format_rate
from relay.protocols.token_estimate import AUDIO_TOKENS_PER_SECOND
from relay.protocols.usage import NO_USAGE, Usage

HEAD: Final = 16_384  # bytes that are kept to tell the format: a tag with a title may come before the first frame
_SAMPLES: Final = 48_000  # bytes per second of 16-bit samples at 24 kHz, which OpenAI sends without a header
_RATES: Final = ((b"OggS", 4_000), (b"fLaC", 24_000), (b"ID3", 16_000))
_SANE: Final = (1_000, 400_000)  # bytes per second that can be meant
_WAV: Final = (b"RIFF", b"RF64", b"BW64")
_STATED: Final = re.compile(r";\s*(rate|channels)\s*=\s*\"?(\d{1,6})\b", re.I)
# Bytes of a sample by the content type of samples without a header, and their rate where it states none. RFC 2586,
# RFC 3190, RFC 4856.
_TYPES: Final = {
    "audio/pcm": (2, 24_000), "audio/x-pcm": (2, 24_000), "audio/raw": (2, 24_000), "audio/l16": (2, 24_000),
    "audio/l8": (1, 24_000), "audio/l24": (3, 24_000), "audio/basic": (1, 8_000), "audio/pcmu": (1, 8_000),
    "audio/pcma": (1, 8_000),
}  # fmt: skip


def _rate(head: bytes, content_type: str) -> float:
    """The bytes per second of a sound that begins like this."""
    if head[:4] in _WAV and head[8:12] == b"WAVE":
        stated = format_rate(head)
        return stated if _SANE[0] <= stated <= _SANE[1] else _SAMPLES
    kind, *_ = content_type.lower().partition(";")
    if (known := _TYPES.get(kind.strip())) is not None:
        return _of_samples(*known, content_type)
    size, seconds = first_frame(head)
    if size and seconds:
        return size / seconds
    return next((rate for mark, rate in _RATES if head.startswith(mark)), _SAMPLES)


def _of_samples(width: int, usual: int, content_type: str) -> float:
    stated = {name.lower(): int(number) for name, number in _STATED.findall(content_type)}
    found = width * (stated.get("rate") or usual) * (stated.get("channels") or 1)
    return found if _SANE[0] <= found <= _SANE[1] else width * usual


def decoded(text: bytes) -> bytes:
    """The bytes of Base64 that may break off; empty when it is none."""
    text = text.replace(b"\\", b"")
    try:
        return base64.b64decode(text[: len(text) // 4 * 4])
    except binascii.Error:
        return b""


def spoken(head: bytes, size: int, whole: Usage, complete: bool, content_type: str = "") -> Usage:
    """The usage of speech of `size` bytes, whose tokens nobody reports.

    `whole`: what the text takes when it is spoken. Of an answer that is incomplete, the sound is counted.
    `content_type`: as the upstream sent it, which states the rate of samples without a header.
    """
    if not size:
        return NO_USAGE
    seconds = size / _rate(head, content_type)
    tokens = whole.output if complete else min(whole.output, math.ceil(seconds * AUDIO_TOKENS_PER_SECOND))
    return Usage(output=tokens, audio_output=tokens, milliseconds=math.ceil(seconds * 1000))
