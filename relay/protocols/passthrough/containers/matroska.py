"""The length of the sound in Matroska and WebM, by the packets of its blocks. Pure. Source: RFC 9559 and RFC 8794.

Browsers record Opus in WebM, and write neither the length of the file nor that of its clusters: only the blocks say how
long it is. What can hold other elements is entered, whatever size it states, so that none of them hides blocks.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from relay.protocols.passthrough.codecs.packets import CodecName, packet_seconds
from relay.protocols.passthrough.containers.samples import wav_rate
from relay.protocols.passthrough.containers.sound import (
    STEPS,
    UNKNOWN,
    Packets,
    Seconds,
    byte_rate,
    counted,
    extended,
    in_turn,
    longest,
    uncounted,
)

MARK: Final = b"\x1a\x45\xdf\xa3"
_CLUSTER: Final = b"\x1f\x43\xb6\x75"
_TRACK: Final = 0xAE
# Segment, Tracks, TrackEntry, Audio, Cluster, BlockGroup.
_ENTERED: Final = frozenset((0x18538067, 0x1654AE6B, _TRACK, 0xE1, 0x1F43B675, 0xA0))
_BLOCKS: Final = frozenset((0xA1, 0xA3))  # Block, SimpleBlock
_CLUSTER_TIME, _SCALE = 0xE7, 0x2AD7B1
# Of a track.
_NUMBER, _TYPE, _CODEC, _PRIVATE, _ENCODINGS = 0xD7, 0x83, 0x86, 0x63A2, 0x6D80
_RATE, _CHANNELS, _BITS = 0xB5, 0x9F, 0x6264
_MOST_STRAYS: Final = 0.1  # share of a file that may be in blocks of tracks that are not described
_SOUND: Final = 2  # a type of tracks
_USUAL_SCALE: Final = 1_000_000  # nanoseconds of a timestamp
# Of encodings: the kind of compression, and what it left out at the beginning of each frame, if that is all.
_COMPRESSION, _LEFT_OUT, _HEADERS, _MOST_LEFT_OUT = b"\x42\x54", b"\x42\x55", 3, 64
_PCM, _WAV = b"A_PCM/", b"A_MS/ACM"
_WAV_CODECS: Final[dict[int, CodecName]] = {
    0x50: "mpeg", 0x55: "mpeg", 0xFF: "aac", 0x2000: "dolby", 0x2001: "dts"
}  # fmt: skip
_CODECS: Final[tuple[tuple[bytes, CodecName], ...]] = (
    (b"A_OPUS", "opus"), (b"A_VORBIS", "vorbis"), (b"A_AAC", "aac"), (b"A_MPEG/L", "mpeg"), (b"A_FLAC", "flac"),
    (b"A_ALAC", "alac"), (b"A_AC3", "dolby"), (b"A_EAC3", "dolby"), (b"A_DTS", "dts"),
)  # fmt: skip


class _Track:
    """One track, as far as it is described, and what its blocks hold."""

    def __init__(self) -> None:
        self.sound, self.number, self.codec, self.private, self.packed = False, 0, b"", b"", False
        self.left_out = b""  # at the beginning of each frame
        self.rate, self.channels, self.bits = 8000.0, 1, 0  # the defaults of RFC 9559
        self.first, self.last = -1, 0
        self.packets: Packets | None = None  # None: no block has been read

    def describe(self, name: int, value: bytes) -> None:
        if name == _CODEC:
            self.codec = value.rstrip(b"\0")
        elif name == _PRIVATE:
            self.private = value
        elif name == _ENCODINGS:
            self.left_out = _left_out(value)
            self.packed = not self.left_out
        elif name == _RATE and len(value) in (4, 8):
            (self.rate,) = struct.unpack(">f" if len(value) == 4 else ">d", value)
        elif name in (_NUMBER, _TYPE, _CHANNELS, _BITS):
            number = int.from_bytes(value[:8], "big")
            if name == _NUMBER:
                self.number = number
            elif name == _TYPE:
                self.sound = number == _SOUND
            elif name == _CHANNELS:
                self.channels = number
            else:
                self.bits = number

    def read(self, content: bytes, frames: Sequence[tuple[int, int]], time: int) -> None:
        """Count the frames of a block: where each begins, and its size."""
        self.first = time if self.first < 0 else min(self.first, time)
        self.last = max(self.last, time)
        if self.packets is None:
            codec, config = self._codec()
            self.packets = Packets(packet_seconds(codec, config, self.rate) if codec is not None else None)
        for at, size in frames:
            if self.left_out:
                frame = self.left_out + content[at : at + size]
                self.packets.add(frame, 0, len(frame))
            else:
                self.packets.add(content, at, size)

    def _codec(self) -> tuple[CodecName | None, bytes]:
        """What the packets hold, and what its decoder is told."""
        if self.packed:
            return None, b""
        if self.codec.startswith(_WAV) and len(self.private) >= 18:
            return _WAV_CODECS.get(int.from_bytes(self.private[:2], "little")), self.private[18:]
        return next((name for mark, name in _CODECS if self.codec.startswith(mark)), None), self.private

    def length(self, scale: int) -> Seconds:
        """Its seconds, by its frames; where these cannot be counted, its timestamps may say that it is longer.

        `scale`: nanoseconds of a timestamp.
        """
        if self.packets is None:
            return UNKNOWN
        if not self.packed:
            rate = 0.0
            if self.codec.startswith(_PCM):
                rate = byte_rate(self.rate, self.channels, -(-self.bits // 8) * 8)
            elif self.codec.startswith(_WAV) and len(self.private) >= 16:
                rate, _ = wav_rate(self.private, 0, len(self.private))
            if rate:
                return counted(self.packets.size / rate)
        return self.packets.total(stated=(self.last - max(0, self.first)) * scale / 1e9)


def matroska(content: bytes) -> Seconds:
    """The longest sound of the tracks; unknown where no block of one is found."""
    tracks: dict[int, _Track] = {}
    silent, strays = set[int](), 0  # tracks that are no sound; bytes of blocks whose track is described nowhere before
    open_track, scale, cluster, at, steps = _Track(), _USUAL_SCALE, 0, 0, 0
    while at < len(content) and steps < STEPS:
        steps += 1
        name, size, body = _element(content, at)
        end = body + size
        if not name or (end > len(content) and name not in _ENTERED):
            following = content.find(_CLUSTER, at + 1)
            if following < 0:
                break  # it ends in the middle of an element
            at = following
            continue
        at = body if name in _ENTERED else end
        if name == _TRACK:
            open_track = _Track()
        elif name in _BLOCKS:
            number, frames, time = _block(content, body, end)
            steps += len(frames)
            if number in tracks:
                tracks[number].read(content, frames, cluster + time)
            elif number not in silent:
                strays += end - body
        elif name == _CLUSTER_TIME:
            cluster = int.from_bytes(content[body : min(end, body + 8)], "big")
        elif name == _SCALE:
            scale = int.from_bytes(content[body : min(end, body + 8)], "big") or _USUAL_SCALE
        elif name not in _ENTERED:
            open_track.describe(name, content[body:end])
            if open_track.sound and open_track.number:
                tracks.setdefault(open_track.number, open_track)
            elif open_track.number:
                silent.add(open_track.number)
    found = extended(longest(track.length(scale) for track in tracks.values()), 0, at, len(content))
    if not found.length:
        return UNKNOWN
    return in_turn((found, uncounted(strays))) if strays > _MOST_STRAYS * len(content) else found


def _left_out(encodings: bytes) -> bytes:
    """What was left out of each frame; empty where more was done to them."""
    at, kind = encodings.find(_LEFT_OUT), encodings.find(_COMPRESSION + b"\x81")
    if at < 0 or kind < 0 or encodings[kind + 3 : kind + 4] != bytes([_HEADERS]):
        return b""
    size, body = _number(encodings, at + 2)
    return encodings[body : body + size] if body and size <= _MOST_LEFT_OUT else b""


def _element(content: bytes, at: int) -> tuple[int, int, int]:
    """The id of the element at this place, its size and where its content begins. 0 as the id: there is none.

    An unknown size is more than any file has.
    """
    width = 9 - content[at].bit_length()
    if width > 4:
        return 0, 0, 0
    name = int.from_bytes(content[at : at + width], "big")
    size, body = _number(content, at + width)
    return (name, size, body) if body else (0, 0, 0)


def _number(content: bytes, at: int) -> tuple[int, int]:
    """A number of variable length, and where it ends; 0 as the latter: there is none."""
    first = content[at] if at < len(content) else 0
    width = 9 - first.bit_length()
    if width > 8 or at + width > len(content):
        return 0, 0
    value = int.from_bytes(content[at : at + width], "big") - (1 << 7 * width)
    return (1 << 62 if value == (1 << 7 * width) - 1 else value), at + width


def _block(content: bytes, at: int, end: int) -> tuple[int, list[tuple[int, int]], int]:
    """The track of a block, where its frames begin and their sizes, and its time in its cluster."""
    number, at = _number(content, at)
    if not at or at + 3 > end:
        return 0, [], 0
    (time,) = struct.unpack_from(">h", content, at)
    lacing, at = content[at + 2] & 6, at + 3
    if not lacing:
        return number, [(at, end - at)], time
    count, at = (content[at] + 1 if at < end else 1), at + 1
    sizes: list[int] = []
    if lacing == 4:  # all of one size
        sizes = [max(0, end - at) // count] * (count - 1)
    elif lacing == 2:  # as in Ogg
        for _ in range(count - 1):
            size = 0
            while at < end:
                size, at = size + content[at], at + 1
                if content[at - 1] < 255:
                    break
            sizes.append(size)
    else:  # each but the first by its difference
        for index in range(count - 1):
            value, following = _number(content, at)
            width = following - at
            at = following or end
            sizes.append(value if not index else sizes[-1] + value - ((1 << 7 * width - 1) - 1 if width > 0 else 0))
    frames: list[tuple[int, int]] = []
    for size in (*sizes, end):
        size = max(0, min(size, end - at))
        frames.append((at, size))
        at += size
    return number, frames, time
