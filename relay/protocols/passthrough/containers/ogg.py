"""The length of the sound in Ogg, by the packets of its streams. Pure. Source: RFC 3533, RFC 7845.

Files that follow each other, as `cat` joins them, are one file (a chain): their lengths add up. What a page states of
its time is not read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from relay.protocols.passthrough.codecs.opus import opus_packet
from relay.protocols.passthrough.codecs.packets import PacketSeconds, packet_seconds
from relay.protocols.passthrough.codecs.vorbis import VorbisPackets
from relay.protocols.passthrough.containers.sound import (
    STEPS,
    UNKNOWN,
    Packets,
    Seconds,
    extended,
    in_turn,
    longest,
)

_MARK: Final = b"OggS"
_BEGINS, _CONTINUES = 2, 1  # flags of a page
_HEAD: Final = 8192  # bytes of a header that are kept
_HEADERS: Final = 3  # packets before those of Vorbis
# What streams begin with that are no sound: film, subtitles, and descriptions of the others.
_SILENT: Final = (b"\x80theora", b"fishead", b"\x80kate", b"BBCD", b"OVP80", b"CMML", b"\x01video", b"\x01text")
_MARKS: Final = (b"OpusHead", b"\x01vorbis", b"Speex   ", b"\x7fFLAC", *_SILENT)


def ogg(content: bytes, start: int) -> Seconds:
    """`start`: where its first page is."""
    at, steps, links = start, 0, [dict[bytes, _Stream]()]
    settled = False  # the streams of this link have begun, and others are of the next one
    while at + 27 <= len(content) and steps < STEPS:
        if not content.startswith(_MARK, at):
            following = content.find(_MARK, at + 1)
            at, steps = following if following >= 0 else len(content), steps + 1
            continue
        table = content[at + 27 : at + 27 + content[at + 26]]
        flags, serial, body = content[at + 5], content[at + 14 : at + 18], at + 27 + len(table)
        if serial not in links[-1] or (flags & _BEGINS and content.startswith(_MARKS, body)):
            if settled or serial in links[-1]:
                links.append({})
            links[-1][serial] = _Stream()
        settled = not flags & _BEGINS
        links[-1][serial].read(content, body, table, bool(flags & _CONTINUES))
        at, steps = body + sum(table), steps + 1 + len(table)
    found = in_turn(longest(stream.total() for stream in link.values()) for link in links)
    return extended(found, start, at, len(content))


class _Stream:
    """One stream of a link."""

    def __init__(self) -> None:
        self._first, self._number, self._begun = b"", 0, 0
        self._vorbis: VorbisPackets | None = None
        self._header = b""  # one of Vorbis that goes on
        self._packets: Packets | None = None  # None: no sound

    def read(self, content: bytes, at: int, table: Sequence[int], continued: bool) -> None:
        """Count the packets of a page whose segments begin at `at`. A packet that goes on counts where it begins."""
        for place, size, begins in _parts(at, table, continued):
            if begins:
                self._number += 1
                if self._number == 1:
                    self._describe(content[place : place + size])
                    continue
            if self._vorbis is not None and self._number <= _HEADERS:
                self._header = (
                    content[place : place + size] if begins else self._header[-_HEAD:] + content[place : place + size]
                )
                if self._number == _HEADERS:
                    self._vorbis.learn(self._header)
            elif self._packets is not None and begins and self._number > 1:
                self._packets.add(content, place, size)

    def _describe(self, head: bytes) -> None:
        """`head`: the first packet of the stream."""
        reader: PacketSeconds | None = None
        if head.startswith(_SILENT):
            return
        if head.startswith(b"OpusHead"):
            reader = opus_packet
        elif head.startswith(b"\x01vorbis"):
            reader = self._vorbis = VorbisPackets(head)
        elif head.startswith(b"Speex   ") and len(head) >= 68:
            reader = _each(0.02 * max(1, struct.unpack_from("<I", head, 64)[0]))
        elif head.startswith(b"\x7fFLAC"):
            reader = packet_seconds("flac", head, 0.0)
        self._packets = Packets(reader)

    def total(self) -> Seconds:
        return self._packets.total() if self._packets is not None else UNKNOWN


def _parts(at: int, table: Sequence[int], continued: bool) -> Iterator[tuple[int, int, bool]]:
    """Where the packets of a page are, their sizes in it, and whether they begin in it."""
    size, begins = 0, not continued
    for segment in table:
        size += segment
        if segment < 255:
            yield at, size, begins
            at, size, begins = at + size, 0, True
    if size:
        yield at, size, begins


def _each(seconds: float) -> PacketSeconds:
    return lambda content, at, size: seconds if size else 0.0
