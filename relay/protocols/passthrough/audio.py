"""The length of audio in a request, for upstreams that do not report it. Pure.

The bytes decide, not what a header states: frames and packets are counted where a container has them, and samples by
their size. Sound that cannot be counted is estimated by its size and by what was heard; what is stated of it makes it
longer, never shorter. Files that are joined are as long as all of them, as decoders read them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from relay.protocols.passthrough.containers.asf import MARK as ASF
from relay.protocols.passthrough.containers.asf import asf
from relay.protocols.passthrough.containers.caf import caf
from relay.protocols.passthrough.containers.elementary.amr import amr
from relay.protocols.passthrough.containers.elementary.flac import flac
from relay.protocols.passthrough.containers.elementary.frames import after_id3, frames_in, mpeg
from relay.protocols.passthrough.containers.films.avi import avi
from relay.protocols.passthrough.containers.films.flash import MARK as FLASH
from relay.protocols.passthrough.containers.films.flash import flash
from relay.protocols.passthrough.containers.films.program_stream import MARK as PROGRAM
from relay.protocols.passthrough.containers.films.program_stream import program_stream
from relay.protocols.passthrough.containers.films.transport_stream import layout, transport_stream
from relay.protocols.passthrough.containers.matroska import MARK as MATROSKA
from relay.protocols.passthrough.containers.matroska import matroska
from relay.protocols.passthrough.containers.mp4 import mp4
from relay.protocols.passthrough.containers.ogg import ogg
from relay.protocols.passthrough.containers.samples import aiff, au, wav, wave64
from relay.protocols.passthrough.containers.sound import BYTES_PER_SECOND, FILM_RATE, LEAST_RATE, UNKNOWN, Seconds
from relay.protocols.passthrough.containers.unknown import usual_seconds

_MAX_SECONDS: Final = 24 * 3600
# Of other containers, what they begin with: Sun's, Core Audio's, Sony's Wave64, those of AMR and Flash.
_MARKS: Final[tuple[tuple[bytes, Callable[[bytes], Seconds]], ...]] = (
    (b".snd", au),
    (b"dns.", au),
    (b"caff", caf),
    (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb", wave64),
    (b"#!AMR", amr),
    (FLASH, flash),
)


class AudioLength(NamedTuple):
    """The milliseconds of an audio file, and between which they are."""

    milliseconds: int
    least: int
    most: int
    usual: int = 0  # of sound that cannot be counted: those that as many bytes usually have; 0: it was counted


def audio_length(content: bytes) -> AudioLength:
    """The length of an audio file: a millisecond at least, and a day at most."""
    found = UNKNOWN
    try:
        found = _reader(content)(content)
    except (struct.error, IndexError, ArithmeticError, ValueError):
        pass  # it ends in the middle of a header
    if not found.length > 0:
        size = len(content)
        found = Seconds(size / BYTES_PER_SECOND, size / FILM_RATE, size / LEAST_RATE, usual_seconds(content))
    length, least, most = map(_milliseconds, (found.length, found.least, found.most))
    return AudioLength(length, least, most, _milliseconds(found.usual) if found.usual else 0)


def _milliseconds(seconds: float) -> int:
    return max(1, round(min(seconds, _MAX_SECONDS) * 1000))


def _reader(content: bytes) -> Callable[[bytes], Seconds]:
    """What reads the seconds of a file of this kind."""
    start = after_id3(content)
    mark = content[start : start + 12]
    if mark[:4] in (b"RIFF", b"RF64", b"BW64") and mark[8:] == b"WAVE":
        return partial(wav, start=start)
    if mark[:4] == b"FORM" and mark[8:] in (b"AIFF", b"AIFC"):
        return partial(aiff, start=start)
    for begins, reader in _MARKS:
        if content.startswith(begins):
            return reader
    if mark[:4] == b"fLaC":
        return partial(flac, start=start)
    if mark[:4] == b"OggS":
        return partial(ogg, start=start)
    if mark[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"moof", b"sidx"):
        return partial(mp4, start=start)
    if content.startswith(ASF):
        return asf
    if mark[:4] == MATROSKA:
        return matroska
    if start or (mark[:1] == b"\xff" and mark[1:2] >= b"\xe0"):
        return partial(mpeg, start=start)
    if mark[:4] == b"RIFF" and mark[8:11] == b"AVI":
        return partial(avi, start=start)
    if content.startswith(PROGRAM, start):
        return partial(program_stream, start=start)
    if not start and layout(content)[0]:
        return transport_stream
    return partial(frames_in, begin=start, end=len(content))
