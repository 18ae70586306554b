"""How long sound can be: what the readers of audio files share. Pure."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

BYTES_PER_SECOND: Final = 4000  # of what cannot be read: low, so that an estimate is too long rather than too short
LEAST_RATE: Final = 100  # bytes per second: a codec in its pauses
LOSSY_RATE: Final = 40_000  # of AAC and WMA at most, 320 kbit/s
STEREO_RATE: Final = 200_000  # of other codecs in MP4: samples of 16 bits, and ALAC
FILM_RATE: Final = 1_250_000  # of what may be a film
STEPS: Final = 200_000  # frames and segments that are looked at, more than an hour; the rest counts by its size
PARTS: Final = 2000  # chunks, blocks, boxes and tracks that are looked at
AAC_RATES: Final = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350)
AAC_FRAME: Final = 1024  # samples
_OPUS_MS: Final = (10, 20, 40, 60) * 3 + (10, 20) * 2 + (2.5, 5, 10, 20) * 4  # of a frame, by its configuration
HIGHEST_RATE: Final = 384_000  # samples per second that are no mistake
_HIGHEST: Final = (HIGHEST_RATE, 32, 64)  # samples per second, channels and bits of a sample that are no mistake
_COUNTED: Final = 0.1  # by which a length that was counted may be wrong


class Seconds(NamedTuple):
    """The seconds of a file, and between which they are."""

    length: float
    least: float
    most: float


UNKNOWN: Final = Seconds(0.0, 0.0, 0.0)


def counted(seconds: float) -> Seconds:
    """Of frames or samples that were counted."""
    return Seconds(seconds, seconds * (1 - _COUNTED), seconds * (1 + _COUNTED)) if seconds > 0 else UNKNOWN


def guessed(seconds: float, size: int, highest: float) -> Seconds:
    """Of so many bytes, at `highest` bytes per second at most."""
    return Seconds(seconds, size / highest, size / LEAST_RATE) if seconds > 0 else UNKNOWN


def believed(stated: float, least: float, most: float, otherwise: float) -> float:
    """What is stated, as far as it is possible."""
    return stated if least <= stated <= most else otherwise


def byte_rate(samples: float, channels: int, bits: float) -> float:
    """The bytes of a second of samples, 0 where they make no sense."""
    sane = all(0 < value <= most for value, most in zip((samples, channels, bits), _HIGHEST, strict=True))
    return samples * channels * bits / 8 if sane else 0.0


def with_rest(seconds: float, start: int, at: int, end: int) -> float:
    """The seconds up to `at`, with those of what was not looked at: like the part from `start`, or by its size."""
    rest = end - at
    return max(seconds + rest / BYTES_PER_SECOND, seconds * (end - start) / (at - start)) if rest > 32 else seconds


def opus_packet(content: bytes, at: int) -> float:
    """The seconds of an Opus packet. RFC 6716, 3.1."""
    frames = (1, 2, 2, 0)[content[at] & 3] or content[at + 1] & 63
    return min(120.0, frames * _OPUS_MS[content[at] >> 3]) / 1000 if content[at : at + 4] != b"Opus" else 0.0


def vorbis_packet(head: bytes) -> float:
    """The most seconds of a Vorbis packet, by the header of its stream. 0 where that makes no sense."""
    if not head.startswith(b"\x01vorbis") or len(head) < 29:
        return 0.0
    (rate,) = struct.unpack_from("<I", head, 12)
    return (1 << (head[28] >> 4)) / 2 / rate if 0 < rate <= HIGHEST_RATE else 0.0  # two blocks overlap by a half
