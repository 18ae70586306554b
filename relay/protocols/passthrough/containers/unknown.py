"""The length of audio that cannot be counted: by its size, and by what was heard in it. Pure.

Neither says enough alone. A file of silence, music or film says how long it may be by its size; speech says by its
words how long it takes at least. What is charged is the longer one, and an estimate.
"""

from __future__ import annotations

import re
from typing import Final

from relay.protocols.passthrough.containers.sound import LEAST_RATE, USUAL_RATE

_FILM_RATE: Final = 125_000  # of films: 1 Mbit/s
_SPOKEN: Final = 3.5  # estimated tokens of a second of speech, 160 words a minute
# What films begin with: Matroska, AVI, Flash, MPEG program and transport streams, RealMedia.
_FILMS: Final = (b"\x1a\x45\xdf\xa3", b"FLV\x01", b"\x00\x00\x01\xba", b".RMF")
_SYNC, _PACKET = b"\x47", 188  # with which packets of a transport stream begin, and their bytes
_OPUS_OR_VORBIS: Final = (b"A_OPUS", b"A_VORBIS")
_HEAD: Final = 4096  # bytes in which tracks are described
_CUE: Final = re.compile(rb"-->[ \t]*(?:(\d+):)?(\d+):(\d+)[.,](\d{1,3})")


def usual_seconds(content: bytes) -> float:
    """The seconds that a file of this size usually has."""
    head = content[:_HEAD]
    film = head.startswith(_FILMS) or (head[:4] == b"RIFF" and head[8:11] == b"AVI")
    film = film or (head.startswith(_SYNC) and head[_PACKET : _PACKET + 1] == _SYNC)
    if film and b"V_" not in head and any(codec in head for codec in _OPUS_OR_VORBIS):
        film = False  # a recording in WebM
    return len(content) / (_FILM_RATE if film else USUAL_RATE)


def heard_milliseconds(usual: int, size: int, units: float, transcript: bytes = b"") -> int:
    """The milliseconds of audio that cannot be counted, once its transcript is known.

    `usual`: those that as many bytes have, or that its container states. `size`: its bytes. `units`: the estimated
    tokens of what was said. `transcript`: of subtitles, whose cues say when they end.
    """
    seconds = max(units / _SPOKEN, _last_cue(transcript))
    return max(usual, round(min(seconds, size / LEAST_RATE) * 1000))


def _last_cue(transcript: bytes) -> float:
    """When the last cue of SRT or WebVTT ends, in seconds; 0 where there is none."""
    found = _CUE.findall(transcript, max(0, len(transcript) - 4096)) if b"-->" in transcript else []
    if not found:
        return 0.0
    hours, minutes, seconds, parts = found[-1]
    whole = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
    return whole + float(b"0." + parts)
