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

MARK: Final = b"OggS"
PAGE_HEAD: Final = 27  # bytes of a page before its table
_BEGINS, _CONTINUES = 2, 1  # flags of a page
_HEAD: Final = 8192  # bytes of a header that are kept
# Of Speex: seconds of a frame, at least; samples of one, samples per second, and frames of a packet that make sense.
_SPOKEN, _MOST_SPOKEN, _LOWEST_SPOKEN, _MOST_FRAMES = 0.02, 640, 4000, 10
_HEADERS: Final = 3  # packets before those of Vorbis
# What streams begin with that are no sound: film, subtitles, and descriptions of the others.
_SILENT: Final = (b"\x80theora", b"fishead", b"\x80kate", b"BBCD", b"OVP80", b"CMML", b"\x01video", b"\x01text")
_MARKS: Final = (b"OpusHead", b"\x01vorbis", b"Speex   ", b"\x7fFLAC", *_SILENT)


def ogg(content: bytes, start: int) -> Seconds:
    """`start`: where its first page is."""
    at, steps, pages = start, 0, OggPages()
    while at + PAGE_HEAD <= len(content) and steps < STEPS:
        end = pages.read(content, at)
        if end:
            at, steps = end, steps + 1 + content[at + PAGE_HEAD - 1]
        else:
            following = content.find(MARK, at + 1)
            at, steps = following if following >= 0 else len(content), steps + 1
    return extended(pages.total(), start, at, len(content))


def page_size(content: bytes, at: int) -> int:
    """The bytes of the page at this place, as far as they are told yet."""
    table = content[at + PAGE_HEAD : at + PAGE_HEAD + content[at + PAGE_HEAD - 1]]
    return PAGE_HEAD + content[at + PAGE_HEAD - 1] + sum(table)


class OggPages:
    """What the pages of a file have, as they come."""

    def __init__(self) -> None:
        self._links = [dict[bytes, _Stream]()]
        self._settled = False  # the streams of this link have begun, and others are of the next one

    def read(self, content: bytes, at: int) -> int:
        """Count the page at this place. Returns where it ends, 0 where there is none."""
        if not content.startswith(MARK, at):
            return 0
        links = self._links
        table = content[at + PAGE_HEAD : at + PAGE_HEAD + content[at + PAGE_HEAD - 1]]
        flags, serial, body = content[at + 5], content[at + 14 : at + 18], at + PAGE_HEAD + len(table)
        if serial not in links[-1] or (flags & _BEGINS and content.startswith(_MARKS, body)):
            if self._settled or serial in links[-1]:
                links.append({})
            links[-1][serial] = _Stream()
        self._settled = not flags & _BEGINS
        links[-1][serial].read(content, body, table, bool(flags & _CONTINUES))
        return body + sum(table)

    def total(self) -> Seconds:
        return in_turn(longest(stream.total() for stream in link.values()) for link in self._links)


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
            samples, rate, frames = (struct.unpack_from("<I", head, place)[0] for place in (56, 36, 64))
            each = samples / rate if 0 < samples <= _MOST_SPOKEN and rate >= _LOWEST_SPOKEN else _SPOKEN
            reader = _each(max(_SPOKEN, each) * min(max(1, frames), _MOST_FRAMES))
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
