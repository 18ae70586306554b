"""The length of audio in a request, for upstreams that do not report it. Pure.

The bytes decide, not what a header states: frames and packets are counted where a container has them, and samples by
their size. What is only stated is believed as far as the bytes can be so long at the rates of the container's codecs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from relay.protocols.passthrough.containers.amr import amr
from relay.protocols.passthrough.containers.samples import aiff, au, caf, wav, wave64
from relay.protocols.passthrough.containers.unknown import usual_seconds
from relay.protocols.passthrough.flac import flac
from relay.protocols.passthrough.matroska import MARK, matroska
from relay.protocols.passthrough.mp4 import mp4
from relay.protocols.passthrough.sound import (
    AAC_RATES,
    BYTES_PER_SECOND,
    FILM_RATE,
    LEAST_RATE,
    LOSSY_RATE,
    STEPS,
    UNKNOWN,
    Seconds,
    believed,
    counted,
    guessed,
    opus_packet,
    vorbis_packet,
    with_rest,
)

_MAX_SECONDS: Final = 24 * 3600
_MPEG_RATES: Final = (44_100, 48_000, 32_000)
_KBITS: Final = {  # by MPEG-1 or a later version, and layer
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_ASF: Final = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES: Final = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# Of other containers, what they begin with: Sun's, Core Audio's, Sony's Wave64 and those of AMR.
_MARKS: Final[tuple[tuple[bytes, Callable[[bytes], Seconds]], ...]] = (
    (b".snd", au),
    (b"dns.", au),
    (b"caff", caf),
    (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb", wave64),
    (b"#!AMR", amr),
)


class AudioLength(NamedTuple):
    """The milliseconds of an audio file, and between which they are."""

    milliseconds: int
    least: int
    most: int
    usual: int = 0  # of a file that cannot be read: those that a file of its size usually has; 0: it was read


def audio_length(content: bytes) -> AudioLength:
    """The length of an audio file: a millisecond at least, and a day at most."""
    found = UNKNOWN
    try:
        reader = _reader(content)
        found = reader(content) if reader is not None else UNKNOWN
    except (struct.error, IndexError, ArithmeticError):
        pass  # it ends in the middle of a header
    usual = 0.0
    if not found.length > 0:
        found = guessed(len(content) / BYTES_PER_SECOND, len(content), FILM_RATE)
        usual = usual_seconds(content)
    length, least, most = map(_milliseconds, found)
    return AudioLength(length, least, most, _milliseconds(usual) if usual else 0)


def _milliseconds(seconds: float) -> int:
    return max(1, round(min(seconds, _MAX_SECONDS) * 1000))


def _reader(content: bytes) -> Callable[[bytes], Seconds] | None:
    """What reads the seconds of a file of this kind."""
    start = _after_id3(content)
    mark = content[start : start + 12]
    if mark[:4] in (b"RIFF", b"RF64", b"BW64") and mark[8:] == b"WAVE":
        return partial(wav, start=start, frames=_mpeg)
    if mark[:4] == b"FORM" and mark[8:] in (b"AIFF", b"AIFC"):
        return partial(aiff, start=start)
    for begins, reader in _MARKS:
        if content.startswith(begins):
            return reader
    if mark[:4] == b"fLaC":
        return lambda content: flac(content, start)
    if mark[:4] == b"OggS":
        return _ogg
    if mark[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"moof", b"sidx"):
        return lambda content: mp4(content, start)
    if content.startswith(_ASF):
        return _asf
    if mark[:4] == MARK:
        return matroska
    if start or (mark[:1] == b"\xff" and mark[1:2] >= b"\xe0"):
        return lambda content: _mpeg(content, start)
    return None


def first_frame(content: bytes) -> tuple[int, float]:
    """The size and the seconds of the first frame of MP3 or of AAC in ADTS; 0 where there is none."""
    at = _after_id3(content)
    return _mpeg_frame(content, at) if content[at : at + 1] == b"\xff" and at + 7 <= len(content) else (0, 0.0)


def _after_id3(content: bytes) -> int:
    """Where an ID3 tag at the beginning ends, 0 without one."""
    if content[:3] != b"ID3" or len(content) < 10:
        return 0
    size = 0
    for byte in content[6:10]:
        size = size << 7 | byte & 127
    return min(len(content), size + 10 + (10 if content[5] & 16 else 0))


# -- frames and packets ----------------------------------------------------------------------------------------------


def _mpeg(content: bytes, start: int) -> Seconds:
    """MP3 and its older layers, and AAC in ADTS: the frames, and what is between them by its size.

    Of another kind than those before, two frames in a row are frames.
    """
    at = start
    seconds, between, kind = 0.0, 0, -1
    for _ in range(STEPS):
        if at + 7 > len(content):
            break
        size, length = _mpeg_frame(content, at) if content[at] == 0xFF else (0, 0.0)
        if size and (kind in (-1, content[at + 1] & 0xFE) or _is_followed(content, at, size)):
            kind, seconds, at = content[at + 1] & 0xFE, seconds + length, at + size
            continue
        following = content.find(b"\xff", at + 1)
        following = following if following >= 0 else len(content)
        between, at = between + following - at, following
    frames, seconds = seconds, seconds + (between / BYTES_PER_SECOND if seconds else 0.0)
    found = counted(with_rest(seconds, start, at, len(content)))
    return found._replace(least=min(found.least, counted(frames).least))  # what is between may be a tag


def _is_followed(content: bytes, at: int, size: int) -> bool:
    """Whether another frame of its kind follows the one at this place."""
    following = at + size
    same = content[following : following + 1] == b"\xff" and content[following + 1] & 0xFE == content[at + 1] & 0xFE
    return same and following + 7 <= len(content) and _mpeg_frame(content, following)[0] > 0


def _mpeg_frame(content: bytes, at: int) -> tuple[int, float]:
    """The size and the seconds of the frame at this place; 0 where there is none."""
    first, second = content[at + 1], content[at + 2]
    if first & 0xE0 != 0xE0:
        return 0, 0.0
    version, layer = first >> 3 & 3, 4 - (first >> 1 & 3)  # version 3 is MPEG-1, 2 is MPEG-2, 0 is MPEG-2.5
    if layer == 4:  # ADTS
        if first & 0xF0 != 0xF0 or second >> 2 & 15 >= len(AAC_RATES):
            return 0, 0.0
        size = (content[at + 3] & 3) << 11 | content[at + 4] << 3 | content[at + 5] >> 5
        return (size, 1024 * ((content[at + 6] & 3) + 1) / AAC_RATES[second >> 2 & 15]) if size > 6 else (0, 0.0)
    if version == 1 or second >> 4 in (0, 15) or second >> 2 & 3 == 3:
        return 0, 0.0
    old = version == 3
    rate = _MPEG_RATES[second >> 2 & 3] >> (0 if old else 1 if version == 2 else 2)
    samples = 384 if layer == 1 else 1152 if layer == 2 or old else 576
    bits = _KBITS[1 if old else 2, layer][second >> 4] * 1000
    slot = 4 if layer == 1 else 1
    return (samples // 8 // slot * bits // rate + (second >> 1 & 1)) * slot, samples / rate


def _ogg(content: bytes) -> Seconds:
    """Opus and Speex by their packets; Vorbis by its last page, as far as its packets can be so long."""
    at = start = _after_id3(content)
    streams: dict[bytes, _OggStream] = {}
    steps = 0
    while at + 27 <= len(content) and steps < STEPS:
        if content[at : at + 4] != b"OggS":
            following = content.find(b"OggS", at + 1)
            at, steps = following if following >= 0 else len(content), steps + 1
            continue
        table = content[at + 27 : at + 27 + content[at + 26]]
        serial, body = content[at + 14 : at + 18], at + 27 + len(table)
        if content[at + 5] & 2:
            streams[serial] = _OggStream(content[body : body + 80])
        stream = streams.get(serial)
        if stream is not None:
            stream.granule = max(stream.granule, *struct.unpack_from("<q", content, at + 6))
            stream.read(content, body, table, bool(content[at + 5] & 1))
        at, steps = body + sum(table), steps + 1 + len(table)
    seconds = max((stream.seconds() for stream in streams.values()), default=0.0)
    return counted(with_rest(seconds, start, at, len(content)))


class _OggStream:
    """One stream of an Ogg file."""

    def __init__(self, head: bytes) -> None:
        """`head`: its first packet."""
        self._opus, self._each, self._rate = head.startswith(b"OpusHead"), 0.0, 0
        if head.startswith(b"\x01vorbis"):
            (self._rate,) = struct.unpack_from("<I", head, 12)
            self._each = vorbis_packet(head)
        elif head.startswith(b"Speex   "):
            self._each = 0.02 * max(1, struct.unpack_from("<I", head, 64)[0])
        self._total, self.granule = 0.0, 0

    def read(self, content: bytes, at: int, table: bytes, continued: bool) -> None:
        """Count the packets of a page whose segments begin at `at`."""
        begins = not continued
        for size in table:
            if begins and size:
                self._total += self._each if self._each else opus_packet(content, at) if self._opus else 0.0
            at, begins = at + size, size < 255

    def seconds(self) -> float:
        if not self._rate:
            return self._total
        return believed(self.granule / self._rate, self._total / 2, self._total, self._total)


# -- tables ----------------------------------------------------------------------------------------------------------


def _asf(content: bytes) -> Seconds:
    at = content.find(_ASF_PROPERTIES, 0, 65_536)
    if at < 0:
        return UNKNOWN
    length, _, preroll = struct.unpack_from("<QQQ", content, at + 64)
    stated, size = length / 1e7 - preroll / 1e3, len(content)
    return guessed(believed(stated, size / LOSSY_RATE, size / LEAST_RATE, 0.0), size, LOSSY_RATE)
