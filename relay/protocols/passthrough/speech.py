"""The length of speech that an upstream makes, counted as it arrives. Pure."""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Final, Protocol

from relay.protocols.passthrough.audio import audio_length
from relay.protocols.passthrough.codecs.flac import flac_frames, stated_rate
from relay.protocols.passthrough.codecs.mpeg import mpeg_frame
from relay.protocols.passthrough.containers.elementary.frames import after_id3
from relay.protocols.passthrough.containers.ogg import MARK as OGG
from relay.protocols.passthrough.containers.ogg import PAGE_HEAD, OggPages, page_size
from relay.protocols.passthrough.containers.samples import format_rate
from relay.protocols.token_estimate import AUDIO_TOKENS_PER_SECOND
from relay.protocols.usage import NO_USAGE, Usage

_HEAD: Final = 4096  # bytes by which the format is told
_SAMPLES: Final = 48_000  # bytes per second of 16-bit samples at 24 kHz, which OpenAI sends without a header
_SANE: Final = (1_000, 400_000)  # bytes per second of samples that can be meant
_WAV: Final = (b"RIFF", b"RF64", b"BW64")
_WAV_HEAD: Final = 44  # bytes
_KEPT: Final = 4 * 1024 * 1024  # bytes of a file that is measured at its end
_STATED: Final = re.compile(r";\s*(rate|channels)\s*=\s*\"?(\d{1,6})\b", re.I)
# Bytes of a sample by the content type of samples without a header, and their rate where it states none. RFC 2586,
# RFC 3190, RFC 4856.
_TYPES: Final = {
    "audio/pcm": (2, 24_000), "audio/x-pcm": (2, 24_000), "audio/raw": (2, 24_000), "audio/l16": (2, 24_000),
    "audio/l8": (1, 24_000), "audio/l24": (3, 24_000), "audio/basic": (1, 8_000), "audio/pcmu": (1, 8_000),
    "audio/pcma": (1, 8_000),
}  # fmt: skip
# Content types of frames, whatever comes before the first one.
_FRAMES: Final = frozenset(("audio/mpeg", "audio/mp3", "audio/x-mpeg", "audio/aac", "audio/x-aac", "audio/aacp"))
# What files begin with that are measured as a whole: Matroska and WebM, AMR, Core Audio, Sun's, AIFF, ASF.
_WHOLE: Final = (b"\x1a\x45\xdf\xa3", b"#!AMR", b"caff", b".snd", b"FORM", b"\x30\x26\xb2\x75")


class _Meter(Protocol):
    """Counts sound of one format."""

    def add(self, data: bytes) -> None:
        """Count more of it."""

    def seconds(self) -> float:
        """Those of all that was added."""


class _Samples:
    def __init__(self, rate: float, head: int = 0) -> None:
        """`rate`: bytes per second. `head`: bytes before the samples."""
        self._rate, self._size = rate, -head

    def add(self, data: bytes) -> None:
        self._size += len(data)

    def seconds(self) -> float:
        return max(0, self._size) / self._rate


class _Frames:
    """MP3, and AAC in ADTS."""

    def __init__(self) -> None:
        self._rest, self._skip, self._seconds, self._size, self._begun = b"", 0, 0.0, 0, False

    def add(self, data: bytes) -> None:
        self._size += len(data)
        found, at = self._rest + data, self._skip
        if not self._begun and len(found) >= 10:
            self._begun, at = True, after_id3(found, 1 << 28)
        while self._begun and at + 7 <= len(found):
            size, seconds = mpeg_frame(found, at)
            if size:
                at, self._seconds = at + size, self._seconds + seconds
            else:
                following = found.find(b"\xff", at + 1)
                at = following if following >= 0 else len(found)
        self._rest, self._skip = found[at:], max(0, at - len(found))

    def seconds(self) -> float:
        return self._seconds or self._size / _SAMPLES


class _Ogg:
    def __init__(self) -> None:
        self._rest, self._pages = b"", OggPages()

    def add(self, data: bytes) -> None:
        found, at = self._rest + data, 0
        while at + PAGE_HEAD <= len(found):
            if not found.startswith(OGG, at):
                following = found.find(OGG, at + 1)
                at = following if following >= 0 else len(found) - len(OGG) + 1
                continue
            if at + page_size(found, at) > len(found):
                break
            at = self._pages.read(found, at)
        self._rest = found[at:]

    def seconds(self) -> float:
        return self._pages.total().length


class _Flac:
    _REACH: Final = 17  # bytes that are looked at from a frame's beginning

    def __init__(self, head: bytes) -> None:
        self._rate, self._rest, self._seconds = stated_rate(head[:42]), b"", 0.0

    def add(self, data: bytes) -> None:
        found = self._rest + data
        end = len(found) - self._REACH
        if end < 3:
            self._rest = found
            return
        seconds, _ = flac_frames(found, 0, end, self._rate, len(found))
        self._rest, self._seconds = found[end - 2 :], self._seconds + seconds

    def seconds(self) -> float:
        return self._seconds + flac_frames(self._rest, 0, len(self._rest), self._rate, len(self._rest))[0]


class _File:
    """A file that is measured at its end."""

    def __init__(self) -> None:
        self._content, self._size = bytearray(), 0

    def add(self, data: bytes) -> None:
        self._size += len(data)
        self._content += data[: _KEPT - len(self._content)]

    def seconds(self) -> float:
        if not self._content:
            return 0.0
        found = audio_length(bytes(self._content))
        return (found.usual or found.milliseconds) / 1000 * self._size / len(self._content)


def _meter(head: bytes, content_type: str) -> _Meter:
    """What counts a sound that begins like this."""
    if head[:4] in _WAV and head[8:12] == b"WAVE":
        stated = format_rate(head)
        return _Samples(stated if _SANE[0] <= stated <= _SANE[1] else _SAMPLES, max(_WAV_HEAD, head.find(b"data") + 8))
    kind = content_type.lower().partition(";")[0].strip()
    if (known := _TYPES.get(kind)) is not None:
        return _Samples(_of_samples(*known, content_type))
    if head.startswith(OGG):
        return _Ogg()
    if head.startswith(b"fLaC"):
        return _Flac(head)
    if head.startswith(_WHOLE) or head[4:8] == b"ftyp":
        return _File()
    if kind in _FRAMES or head.startswith(b"ID3") or mpeg_frame(head, 0)[0]:
        return _Frames()
    return _Samples(_SAMPLES)


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


class Speech:
    """Counts the seconds of one answer that is spoken, whatever format it has and wherever it breaks off."""

    def __init__(self, content_type: str = "") -> None:
        """`content_type`: as the upstream sent it, which states the rate of samples without a header."""
        self._content_type, self._head, self.size = content_type, b"", 0
        self._found: _Meter | None = None

    @classmethod
    def of(cls, sound: bytes, content_type: str = "") -> Speech:
        """That of a whole answer."""
        found = cls(content_type)
        found.add(sound)
        return found

    def add(self, data: bytes) -> None:
        self.size += len(data)
        if self._found is not None:
            self._found.add(data)
            return
        self._head += data
        if len(self._head) >= _HEAD:
            self._found = self._begun()
            self._head = b""

    def _begun(self) -> _Meter:
        meter = _meter(self._head, self._content_type)
        meter.add(self._head)
        return meter

    @property
    def seconds(self) -> float:
        if not self.size:
            return 0.0
        return (self._found or self._begun()).seconds()

    def usage(self, whole: Usage, complete: bool) -> Usage:
        """Its usage, whose tokens nobody reports.

        `whole`: what the text takes when it is spoken. Of an answer that is incomplete, the sound is counted.
        """
        if not self.size:
            return NO_USAGE
        seconds = self.seconds
        tokens = whole.output if complete else min(whole.output, math.ceil(seconds * AUDIO_TOKENS_PER_SECOND))
        return Usage(output=tokens, audio_output=tokens, milliseconds=math.ceil(seconds * 1000))
