"""The length of Core Audio files, by their samples or packets. Pure.

Source: Apple Core Audio Format Specification 1.0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice, repeat
from typing import Final

from relay.protocols.passthrough.codecs.aac import described
from relay.protocols.passthrough.codecs.packets import CodecName, packet_seconds
from relay.protocols.passthrough.containers.samples import NOT_AUDIO, sampled
from relay.protocols.passthrough.containers.sound import (
    HIGHEST_RATE,
    PARTS,
    STEPS,
    UNKNOWN,
    Packets,
    Seconds,
    byte_rate,
    uncounted,
)

_BITS: Final = {b"ulaw": 8.0, b"alaw": 8.0, b"ima4": 4.25}  # of a sample
_CODECS: Final[dict[bytes, CodecName]] = {
    b"aac ": "aac", b"aach": "aac", b"aacl": "aac", b"aace": "aac", b"aacp": "aac", b"alac": "alac", b"opus": "opus",
    b"flac": "flac", b".mp1": "mpeg", b".mp2": "mpeg", b".mp3": "mpeg", b"ac-3": "dolby", b"ec-3": "dolby",
    b"samr": "amr", b"sawb": "amr-wb",
}  # fmt: skip


def caf(content: bytes) -> Seconds:
    """Packets are those of the packet table: a decoder finds no others."""
    kind, samples, each, frames, channels, bits, begin, size = b"", 0.0, 0, 0, 0, 0, 0, 0
    cookie, table = b"", b""
    for name, at, length in _chunks(content):
        if name == b"desc":
            samples, kind, _, each, frames, channels, bits = struct.unpack_from(">d4s5I", content, at)
        elif name == b"kuki":
            cookie = content[at : at + length]
        elif name == b"pakt":
            table = content[at + 24 : at + length]
        elif name == b"data":
            begin, size = begin or at + 4, size + max(0, length - 4)  # a count of edits comes first
    if kind == b"lpcm" or kind in _BITS:
        width = -(-bits // 8) * 8 if kind == b"lpcm" else _BITS[kind]
        return sampled(content, begin, size, byte_rate(samples, channels, width))
    codec, whole = _CODECS.get(kind), len(content) - begin
    if not begin:
        return UNKNOWN
    if size < (1 - NOT_AUDIO) * whole:
        size = whole
    if codec is None or not 0 < samples <= HIGHEST_RATE or not (each or table):
        return uncounted(size)
    packets = Packets(packet_seconds(codec, described(cookie)[1] if codec == "aac" else cookie, samples))
    lengths = list(islice(repeat(each, size // each) if each else _numbers(table, 1 if frames else 2), STEPS))
    at, end = begin, begin + size
    for length in lengths[:-1]:
        packets.add(content, at, min(length, end - at))
        at = min(end, at + length)
    # The last one has what is left, whatever the table says of it.
    last = end - at if len(lengths) < STEPS and not each else sum(lengths[-1:])
    packets.add(content, at, min(last, end - at))
    return packets.total(size)


def _numbers(table: bytes, step: int) -> Iterator[int]:
    """Every so many numbers of a packet table, each of which has as many bytes as it takes."""
    value, number = 0, 0
    for byte in table:
        value = value << 7 | byte & 127
        if byte < 128:
            if number % step == 0:
                yield value
            value, number = 0, number + 1


def _chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The names of chunks, where their contents begin, and their sizes. The last one may reach to the end."""
    at = 8
    for _ in range(PARTS):
        if at + 12 > len(content):
            return
        name, size = struct.unpack_from(">4sq", content, at)
        at += 12
        rest = len(content) - at
        yield name, at, min(size, rest) if size >= 0 else rest
        at += size if size >= 0 else rest
