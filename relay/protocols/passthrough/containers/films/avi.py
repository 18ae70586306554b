"""The length of the sound in AVI, by what its chunks hold. Pure.

Source: Microsoft's AVI RIFF File Reference, OpenDML AVI File Format Extensions 1.02.
"""

from __future__ import annotations

import struct
from typing import Final

from relay.protocols.passthrough.containers.elementary.frames import frames_in, hidden_frames
from relay.protocols.passthrough.containers.samples import wav_rate
from relay.protocols.passthrough.containers.sound import STEPS, Seconds, counted, extended, longest, uncounted

_LISTS: Final = (b"RIFF", b"LIST")
_SOUND, _FORMAT, _OF_SOUND = b"auds", b"strf", b"wb"
_HEAD: Final = 8  # bytes of a chunk's head


def avi(content: bytes, start: int) -> Seconds:
    """`start`: where it begins. Lists are entered, whatever size they state."""
    at, number, sounds = start, -1, False
    rates, pieces = dict[bytes, float](), dict[bytes, list[bytes]]()
    for _ in range(STEPS):
        if at + _HEAD > len(content):
            break
        name, size = struct.unpack_from("<4sI", content, at)
        body = at + _HEAD
        if name in _LISTS:
            at = body + 4
            continue
        if name == b"strh":
            number, sounds = number + 1, content[body : body + 4] == _SOUND
        elif name == _FORMAT and sounds and size >= 16:
            rates[b"%02d" % number] = wav_rate(content, body, size)[0]
        elif name[2:] == _OF_SOUND:
            pieces.setdefault(name[:2], []).append(content[body : body + size])
        at = body + size + size % 2
    found = longest(_stream(b"".join(parts), rates.get(name, 0.0)) for name, parts in pieces.items())
    return extended(found, start, min(at, len(content)), len(content))


def _stream(data: bytes, rate: float) -> Seconds:
    """`rate`: bytes per second of samples, 0 where it has none."""
    if rate:
        return longest((counted(len(data) / rate), hidden_frames(data, 0, len(data))))
    found = frames_in(data, 0, len(data))
    return found if found.length else uncounted(len(data))
