"""How long sound can be: what the readers of audio files share. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from relay.protocols.passthrough.codecs.packets import PacketSeconds

BYTES_PER_SECOND: Final = 4000  # of what cannot be read: low, so that an estimate is too long rather than too short
USUAL_RATE: Final = 16_000  # bytes per second of what cannot be counted: 128 kbit/s
LEAST_RATE: Final = 100  # bytes per second: a codec in its pauses
FILM_RATE: Final = 1_250_000  # of what may be a film
STEPS: Final = 200_000  # frames and segments that are looked at, more than an hour; the rest counts by its size
PARTS: Final = 2000  # chunks, blocks, boxes and tracks that are looked at
HIGHEST_RATE: Final = 384_000  # samples per second that are no mistake
_HIGHEST: Final = (HIGHEST_RATE, 32, 64)  # samples per second, channels and bits of a sample that are no mistake
_COUNTED: Final = 0.1  # by which a length that was counted may be wrong
_LOST: Final = 0.1  # share of the bytes of a stream that may be in packets that are none


class Seconds(NamedTuple):
    """The seconds of a file or of a stream in it, and between which they are."""

    length: float
    least: float
    most: float
    usual: float = 0.0  # those that it usually has, if they could not be counted; 0: they were


UNKNOWN: Final = Seconds(0.0, 0.0, 0.0)


def counted(seconds: float) -> Seconds:
    """Of frames or samples that were counted."""
    return Seconds(seconds, seconds * (1 - _COUNTED), seconds * (1 + _COUNTED)) if seconds > 0 else UNKNOWN


def uncounted(size: int, stated: float = 0.0, rate: float = USUAL_RATE) -> Seconds:
    """Of so many bytes of sound that nothing but a header describes: what it states makes it longer, never shorter.

    `rate`: bytes per second that it usually has.
    """
    if size <= 0:
        return UNKNOWN
    most = size / LEAST_RATE
    usual = max(size / rate, stated if stated <= most else 0.0)
    return Seconds(max(usual, size / BYTES_PER_SECOND), size / max(rate, FILM_RATE), most, usual)


def longest(streams: Iterable[Seconds]) -> Seconds:
    """Of streams that sound at the same time: which of them an upstream hears is not known."""
    found = UNKNOWN
    for stream in streams:
        usual = max(found.usual or found.length, stream.usual or stream.length) if found.usual or stream.usual else 0.0
        found = Seconds(
            max(found.length, stream.length), max(found.least, stream.least), max(found.most, stream.most), usual
        )
    return found


def in_turn(parts: Iterable[Seconds]) -> Seconds:
    """Of parts that follow each other."""
    found = UNKNOWN
    for part in parts:
        usual = (found.usual or found.length) + (part.usual or part.length) if found.usual or part.usual else 0.0
        found = Seconds(found.length + part.length, found.least + part.least, found.most + part.most, usual)
    return found


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


def extended(found: Seconds, start: int, at: int, end: int) -> Seconds:
    """What was found up to `at`, with what was not looked at behind it, as in `with_rest`."""
    more = with_rest(found.length, start, at, end) - found.length if found.length and at > start else 0.0
    if more <= 0:
        return found
    return found._replace(
        length=found.length + more, most=found.most + more, usual=found.usual + more if found.usual else 0.0
    )


class Packets:
    """What the packets of one stream have in all."""

    def __init__(self, reader: PacketSeconds | None) -> None:
        """`reader`: counts them; None: their codec is not known."""
        self._reader, self._seconds, self.size, self._lost, self._packed = reader, 0.0, 0, 0, False

    def add(self, content: bytes, at: int, size: int) -> None:
        """Count the packet of so many bytes at this place."""
        seconds = self._reader(content, at, size) if self._reader is not None else 0.0
        self.size += size
        if seconds < 0:
            self._packed = True
        elif seconds:
            self._seconds += seconds
        else:
            self._lost += size

    def total(self, size: int = 0, stated: float = 0.0) -> Seconds:
        """Their seconds. `size`: the bytes that all have, with those that were not added. `stated`: by a header."""
        whole = max(size, self.size)
        scale = whole / self.size if self.size else 1.0
        if not self._seconds:
            return uncounted(whole, stated)
        found = counted(self._seconds * scale)
        if self._packed:  # decoders may find more in it than was counted
            return longest((found, uncounted(whole)))
        if self._lost <= _LOST * self.size:
            return found
        return in_turn((found, uncounted(round(self._lost * scale))))
