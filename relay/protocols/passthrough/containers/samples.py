"""The length of containers whose audio is mostly samples of a fixed size, by their size. Pure.

WAV and its forms for large files (RF64 and BW64, EBU Tech 3306; Sony's Wave64), AIFF, Sun's AU, and Apple's Core Audio
Format, whose specification names the codecs that it holds.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

from relay.protocols.passthrough.sound import (
    BYTES_PER_SECOND,
    HIGHEST_RATE,
    LEAST_RATE,
    LOSSY_RATE,
    PARTS,
    STEREO_RATE,
    UNKNOWN,
    Seconds,
    believed,
    byte_rate,
    counted,
    guessed,
)

_NOT_AUDIO: Final = 0.1  # share of a file that chunks beside the audio may have to be believed
_UNSTATED: Final = 0xFFFFFFFF  # a size that is not known, or does not fit into its member
# Bits of a sample by the format tag of a WAV: ADPCM, G.711, GSM 6.10. PCM says it itself.
_WAV_BITS: Final = {0x02: 4.0, 0x11: 4.0, 0x06: 8.0, 0x07: 8.0, 0x31: 1.625}
_WAV_PCM: Final = (1, 3)
_WAV_MPEG: Final = (0x50, 0x55, 0xFF)  # MP2, MP3, AAC
_AIFC_BITS: Final = {b"ulaw": 8.0, b"ULAW": 8.0, b"alaw": 8.0, b"ALAW": 8.0, b"ima4": 4.25}
_AIFC_PCM: Final = frozenset((b"NONE", b"twos", b"sowt", b"raw ", b"in24", b"in32", b"fl32", b"FL32", b"fl64", b"FL64"))
# Bits of a sample by the encoding of an AU: G.711, PCM, floats, ADPCM.
_AU_BITS: Final = {1: 8, 2: 8, 3: 16, 4: 24, 5: 32, 6: 32, 7: 64, 23: 4, 24: 4, 25: 3, 26: 5, 27: 8}
_CAF_BITS: Final = {b"ulaw": 8.0, b"alaw": 8.0, b"ima4": 4.25}
_CAF_LOSSLESS: Final = frozenset((b"alac", b"flac"))
# Samples of a packet of Core Audio's compressed formats.
_CAF_PACKET: Final = {
    b"aac ": 1024, b"aach": 2048, b"aacp": 2048, b"aacl": 512, b"alac": 4096, b".mp1": 384, b".mp2": 1152,
    b".mp3": 1152, b"opus": 960, b"flac": 4096, b"ilbc": 240, b"samr": 160, b"sawb": 320,
}  # fmt: skip


def _chunks(content: bytes, header: struct.Struct, start: int) -> Iterator[tuple[bytes, int, int]]:
    """The names of chunks, where their contents begin, and their sizes."""
    for _ in range(PARTS):
        if start + header.size > len(content):
            return
        name, size = header.unpack_from(content, start)
        start += header.size
        yield name, start, min(size, len(content) - start)
        start += size + size % 2


def _sampled(content: bytes, begin: int, size: int, rate: float) -> Seconds:
    """The seconds of samples from `begin` on, of which `size` bytes are said to be audio. `rate`: bytes a second."""
    if not begin or rate <= 0:
        return UNKNOWN
    whole = (len(content) - begin) / rate
    return counted(believed(size / rate, (1 - _NOT_AUDIO) * whole, whole, whole))


def _wav_rate(content: bytes, start: int, length: int) -> tuple[float, bool]:
    """The bytes per second that a `fmt ` chunk means, 0 where they make no sense, and whether it holds frames."""
    tag, channels, samples, _, _, bits = struct.unpack_from("<HHIIHH", content, start)
    if tag == 0xFFFE and length >= 26:  # "extensible": the tag is in its last member
        (tag,) = struct.unpack_from("<H", content, start + 24)
    each = -(-bits // 8) * 8 if tag in _WAV_PCM else _WAV_BITS.get(tag, 0.0)
    return byte_rate(samples, channels, each), tag in _WAV_MPEG


def wav(content: bytes, start: int, frames: Callable[[bytes, int], Seconds]) -> Seconds:
    """WAV, RF64 and BW64. `start`: where it begins. `frames`: counts the MPEG frames from a place on."""
    rate, begin, size, framed, large = 0.0, 0, 0, False, 0
    for name, at, length in _chunks(content, struct.Struct("<4sI"), start + 12):
        if name == b"fmt ":
            found, mpeg = _wav_rate(content, at, length)
            rate, framed = min(rate, found) if begin or rate else found, framed or mpeg
        elif name == b"ds64" and length >= 16:
            (large,) = struct.unpack_from("<Q", content, at + 8)
        elif name == b"data":
            (stated,) = struct.unpack_from("<I", content, at - 4)
            begin, size = begin or at, size + (min(large, length) if stated == _UNSTATED and large else length)
    return frames(content, begin) if framed and begin else _sampled(content, begin, size, rate)


def wave64(content: bytes) -> Seconds:
    """Sony's Wave64: chunks named by GUIDs, whose sizes of 64 bits include their heads and are padded to 8 bytes."""
    rate, begin, size, at = 0.0, 0, 0, 40
    for _ in range(PARTS):
        if at + 24 > len(content):
            break
        (whole,) = struct.unpack_from("<Q", content, at + 16)
        length = min(max(0, whole - 24), len(content) - at - 24)
        if content[at : at + 4] == b"fmt ":
            found, _ = _wav_rate(content, at + 24, length)
            rate = min(rate, found) if begin or rate else found
        elif content[at : at + 4] == b"data":
            begin, size = begin or at + 24, size + length
        at += max(24, -(-whole // 8) * 8)
    return _sampled(content, begin, size, rate)


def aiff(content: bytes, start: int) -> Seconds:
    """AIFF and AIFF-C that begin at `start`."""
    rate, begin, size = 0.0, 0, 0
    for name, at, length in _chunks(content, struct.Struct(">4sI"), start + 12):
        if name == b"COMM":
            channels, _, bits, exponent, mantissa = struct.unpack_from(">hIhHQ", content, at)
            kind = content[at + 18 : at + 22] if length >= 22 else b"NONE"
            each = -(-bits // 8) * 8 if kind in _AIFC_PCM else _AIFC_BITS.get(kind, 0.0)
            samples = mantissa * 2.0 ** (max(-200, min(200, (exponent & 0x7FFF) - 16383 - 63)))
            rate = byte_rate(samples, channels, each)
        elif name == b"SSND":
            begin, size = begin or at, size + length
    return _sampled(content, begin, size, rate)


def au(content: bytes) -> Seconds:
    """Sun's AU, in either order of bytes."""
    order = "<" if content.startswith(b"dns.") else ">"
    begin, size, encoding, samples, channels = struct.unpack_from(f"{order}5I", content, 4)
    begin = begin if 24 <= begin <= len(content) else 24
    rate = byte_rate(samples, channels, _AU_BITS.get(encoding, 0))
    return _sampled(content, begin, min(size, len(content) - begin), rate)


def caf(content: bytes) -> Seconds:
    """Core Audio: samples by their size; packets as many as it states, as far as their bytes can be so long."""
    kind, samples, channels, bits, packets, begin, size = b"", 0.0, 0, 0, 0, 0, 0
    for name, at, length in _chunks_of_caf(content):
        if name == b"desc":
            samples, kind, _, _, _, channels, bits = struct.unpack_from(">d4s5I", content, at)
        elif name == b"pakt":
            (packets,) = struct.unpack_from(">q", content, at)
        elif name == b"data":
            begin, size = begin or at + 4, size + max(0, length - 4)  # a count of edits comes first
    if kind == b"lpcm" or kind in _CAF_BITS:
        each = -(-bits // 8) * 8 if kind == b"lpcm" else _CAF_BITS[kind]
        return _sampled(content, begin, size, byte_rate(samples, channels, each))
    if not size:
        return UNKNOWN
    size, highest = len(content) - begin, STEREO_RATE if kind in _CAF_LOSSLESS else LOSSY_RATE
    stated = max(0, packets) * _CAF_PACKET.get(kind, 0) / samples if 0 < samples <= HIGHEST_RATE else 0.0
    seconds = believed(stated, size / highest, size / LEAST_RATE, size / BYTES_PER_SECOND)
    return guessed(seconds, size, highest)


def _chunks_of_caf(content: bytes) -> Iterator[tuple[bytes, int, int]]:
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
