"""The length of the sound in MP4 and QuickTime, by the samples of its tracks. Pure.

No clock of it is believed: `mvhd`, `mdhd`, `stts` and edit lists only say when samples are shown. Source: ISO/IEC
14496-12 and 14496-3, Apple's QuickTime file format.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from relay.protocols.passthrough.codecs.aac import AAC, described
from relay.protocols.passthrough.codecs.packets import CodecName, packet_seconds
from relay.protocols.passthrough.containers.boxes import NOWHERE, Box, Run, Table, boxes, fragments
from relay.protocols.passthrough.containers.edits import is_repeated
from relay.protocols.passthrough.containers.samples import wav_bits
from relay.protocols.passthrough.containers.sound import (
    HIGHEST_RATE,
    STEPS,
    UNKNOWN,
    Packets,
    Seconds,
    byte_rate,
    counted,
    longest,
    uncounted,
)

_CODECS: Final[dict[bytes, CodecName]] = {
    b"Opus": "opus", b"fLaC": "flac", b"alac": "alac", b"ac-3": "dolby", b"ec-3": "dolby", b"sac3": "dolby",
    b"dtsc": "dts", b"dtsh": "dts", b"dtsl": "dts", b".mp3": "mpeg", b"mp3 ": "mpeg", b"ms\0U": "mpeg",
    b"samr": "amr", b"sawb": "amr-wb",
}  # fmt: skip
_TYPES: Final[dict[int, CodecName]] = {  # objects of “mp4a”
    AAC: "aac", 0x66: "aac", 0x67: "aac", 0x68: "aac", 0x69: "mpeg", 0x6B: "mpeg", 0xA5: "dolby", 0xA6: "dolby",
    0xA9: "dts", 0xAD: "opus", 0xDD: "vorbis",
}  # fmt: skip
_BITS: Final = {  # of a sample; 0: the entry says them
    b"twos": 0, b"sowt": 0, b"NONE": 0, b"raw ": 0, b"lpcm": 0, b"ipcm": 0, b"fpcm": 0, b"in24": 24, b"in32": 32,
    b"fl32": 32, b"fl64": 64, b"ulaw": 8, b"alaw": 8,
}  # fmt: skip
_IMA: Final = (34, 64)  # bytes of a packet of one channel, and its samples
_ONCE: Final = frozenset((b"mdia", b"minf", b"stbl", b"stsd", b"stsz", b"stz2", b"stsc", b"stco", b"co64"))
_MOST_ENTRIES: Final = 4  # descriptions of a track that are looked at


class _Entry(NamedTuple):
    """How the samples of a track are described."""

    name: bytes
    rate: float
    channels: int
    bits: int
    body: bytes


def mp4(content: bytes, start: int) -> Seconds:
    """The longest sound of the first `moov`, with what fragments add to it."""
    moov = next((box for box in boxes(content, start, len(content), STEPS) if box.name == b"moov"), None)
    if moov is None:
        return UNKNOWN
    added = fragments(content, start, moov)
    tracks = [box for box in boxes(content, moov.begin, moov.end) if box.name == b"trak"]
    clock = next((box for box in boxes(content, moov.begin, moov.end) if box.name == b"mvhd"), None)
    at = clock.begin + (20 if content[clock.begin] else 12) if clock is not None else len(content)
    scale = int.from_bytes(content[at : at + 4], "big")
    return longest(_track(content, track, added, scale) for track in tracks)


def _track(content: bytes, track: Box, added: dict[int, list[Run]], scale: int) -> Seconds:
    """The seconds of a track of sound; unknown for others. Of one that has a table twice, its samples are not known.

    `scale`: the units per second of the movie's clock.
    """
    leaves: dict[bytes, Box] = {}
    handlers, twice, open_boxes = set[bytes](), False, [track]
    while open_boxes:
        outer = open_boxes.pop()
        for box in boxes(content, outer.begin, outer.end):
            if box.name in (b"mdia", b"minf", b"stbl"):
                open_boxes.append(box)
            elif box.name == b"hdlr":
                handlers.add(content[box.begin + 8 : box.begin + 12])
            twice = twice or (box.name in _ONCE and box.name in leaves)
            leaves.setdefault(box.name, box)
    entries = list(_entries(content, leaves.get(b"stsd")))
    is_sound = b"soun" in handlers or (b"vide" not in handlers and any(entry.name in _CODECS for entry in entries))
    if not is_sound:
        return UNKNOWN
    number, head = 0, leaves.get(b"tkhd")
    if head is not None:
        at = head.begin + (20 if content[head.begin] else 12)
        number = int.from_bytes(content[at : at + 4], "big")
    runs = added.get(number, [])
    table = Table(content, leaves)
    if twice or not entries or (table.each and runs):
        return uncounted(len(content))
    found = longest(_by_entry(content, entry, table, runs) for entry in entries)
    if found.length and is_repeated(content, track, leaves, scale):  # decoders read a part as often as it is listed
        return longest((found, uncounted(len(content))))
    return found


def _by_entry(content: bytes, entry: _Entry, table: Table, runs: list[Run]) -> Seconds:
    """The seconds of a track, if all of its samples are as this entry describes them."""
    size = table.size + sum(run.size for run in runs)
    if entry.name == b"ima4" and entry.rate and table.each:
        packed, samples = _IMA
        return counted((table.count * samples if table.each >= packed else table.chunked) / entry.rate)
    bits = wav_bits(int.from_bytes(entry.name[2:], "big")) if entry.name[:2] == b"ms" else 0.0
    if bits and table.each == 1 and entry.rate:
        return counted(table.chunked / entry.rate)
    if entry.name in _BITS or bits:
        rate = byte_rate(entry.rate, entry.channels, bits or _BITS[entry.name] or entry.bits)
        if not rate:
            return uncounted(len(content))
        frames = table.count / entry.rate if table.each else 0.0  # each of them is one sample of all channels
        return counted(max(frames, size / rate))
    found = list[Seconds]()
    for codec, config in _configs(entry):
        if codec is None:
            return uncounted(min(size, len(content)) if size else len(content))
        packets, looked, nowhere = Packets(packet_seconds(codec, config, entry.rate)), 0, 0
        for at, length in _samples(table, runs):
            looked += length
            if at == NOWHERE:
                nowhere += length
            if at < len(content) or (at == NOWHERE and nowhere <= len(content)):  # the same bytes can come again
                packets.add(content, at, length)
        found.append(packets.total(round(packets.size * size / looked) if looked else 0))
    return longest(found)


def _configs(entry: _Entry) -> Iterator[tuple[CodecName | None, bytes]]:
    """What the decoder may be told: by whatever looks like a description of it."""
    marks = {b"mp4a": b"esds", b"fLaC": b"dfLa", b"alac": b"alac"}
    name = marks.get(entry.name, b"")
    places = [place.end() for place in re.finditer(name, entry.body)] if name else []
    if len(places) > _MOST_ENTRIES:
        yield None, b""
        return
    for at in places:
        if entry.name == b"mp4a":
            kind, config = described(entry.body[at + 4 :])
            yield _TYPES.get(kind), config
        else:
            yield _CODECS[entry.name], entry.body[at + (4 if entry.name == b"fLaC" else -4) :]
    if not places:
        yield ("aac" if entry.name == b"mp4a" else _CODECS.get(entry.name)), b"" if name else entry.body


def _samples(table: Table, runs: list[Run]) -> Iterator[tuple[int, int]]:
    """Where the samples of a track are, and their sizes; not all of them where there are very many."""
    left = STEPS
    for sample in table.samples():
        left -= 1
        yield sample
    for run in runs:
        for sample in run.samples(left):
            left -= 1
            yield sample


def _entries(content: bytes, table: Box | None) -> Iterator[_Entry]:
    if table is None:
        return
    for entry in boxes(content, table.begin + 8, table.end, _MOST_ENTRIES):
        body = content[entry.begin : entry.end]
        if len(body) < 28:
            continue
        version, channels, bits, fixed = struct.unpack_from(">8xH6xHH4xI", body)
        rate = fixed / 65_536
        if version == 2 and len(body) >= 52:
            rate, channels, bits = struct.unpack_from(">dI4xI", body, 32)
        if entry.name in (b"ipcm", b"fpcm") and (at := body.find(b"pcmC")) >= 0:
            bits = body[at + 9] if len(body) > at + 9 else 0
        sane = 0 < rate <= HIGHEST_RATE
        yield _Entry(entry.name, rate if sane else 0.0, channels, -(-bits // 8) * 8, body)
