"""The length of containers of samples of a fixed size, by their size. Pure.

WAV and its forms for large files (RF64 and BW64, EBU Tech 3306; Sony's Wave64), AIFF, and Sun's AU. Where a file
describes its samples twice, the description by which they take longer counts.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from relay.protocols.passthrough.containers.elementary.frames import frames_in, hidden_frames
from relay.protocols.passthrough.containers.sound import PARTS, UNKNOWN, Seconds, believed, byte_rate, counted, longest

NOT_AUDIO: Final = 0.1  # share of a file that chunks beside the audio may have to be believed
_UNSTATED: Final = 0xFFFFFFFF  # a size that is not known, or does not fit into its member
# Bits of a sample by the format tag of a WAV: ADPCM, G.711, Yamaha's ADPCM, TrueSpeech, GSM 6.10, G.722. PCM says it
# itself.
_WAV_BITS: Final = {0x02: 4.0, 0x06: 8.0, 0x07: 8.0, 0x20: 4.0, 0x22: 16 / 15, 0x31: 1.625, 0x65: 4.0, 0x28F: 4.0}
# IMA's ADPCM and G.726, and the bits that they can have: 4 and the fewest of these, unless they say them.
_WAV_IMA, _WAV_G726, _WAV_NARROW = 0x11, (0x45, 0x64), (2, 3, 4, 5)
_WAV_PCM: Final = (1, 3)
_WAV_FRAMES: Final = (0x50, 0x55, 0xFF, 0x1600, 0x1602, 0x2000, 0x2001)  # MP2, MP3, AAC, ADTS, LOAS, AC-3, DTS
_AIFC_BITS: Final = {
    b"ulaw": 8.0, b"ULAW": 8.0, b"alaw": 8.0, b"ALAW": 8.0, b"ima4": 4.25,
    b"raw ": 8.0, b"in24": 24.0, b"in32": 32.0, b"fl32": 32.0, b"FL32": 32.0, b"fl64": 64.0, b"FL64": 64.0,
}  # fmt: skip
_AIFC_PCM: Final = frozenset((b"NONE", b"twos", b"sowt"))  # of the bits that the file states
# Bits of a sample by the encoding of an AU: G.711, PCM, floats, ADPCM.
_AU_BITS: Final = {1: 8, 2: 8, 3: 16, 4: 24, 5: 32, 6: 32, 7: 64, 23: 4, 24: 4, 25: 3, 26: 5, 27: 8}


def _chunks(content: bytes, header: struct.Struct, start: int) -> Iterator[tuple[bytes, int, int]]:
    """The names of chunks, where their contents begin, and their sizes."""
    for _ in range(PARTS):
        if start + header.size > len(content):
            return
        name, size = header.unpack_from(content, start)
        start += header.size
        yield name, start, min(size, len(content) - start)
        start += size + size % 2


def sampled(content: bytes, begin: int, size: int, rate: float) -> Seconds:
    """The seconds of samples from `begin` on, of which `size` bytes are said to be audio. `rate`: bytes a second."""
    if not begin or rate <= 0:
        return UNKNOWN
    whole = (len(content) - begin) / rate
    return counted(believed(size / rate, (1 - NOT_AUDIO) * whole, whole, whole))


def wav_rate(content: bytes, start: int, length: int) -> tuple[float, bool]:
    """The bytes per second that a `fmt ` chunk means, 0 where they make no sense, and whether it holds frames."""
    tag, channels, samples, stated, _, bits = struct.unpack_from("<HHIIHH", content, start)
    if tag == 0xFFFE and length >= 26:  # "extensible": the tag is in its last member
        (tag,) = struct.unpack_from("<H", content, start + 24)
    each = -(-bits // 8) * 8 if tag in _WAV_PCM else _WAV_BITS.get(tag, 0.0)
    if tag == _WAV_IMA:
        each = bits if bits in _WAV_NARROW else 4
    elif tag in _WAV_G726:  # its bits are told by either
        told = [width for width in (bits, stated * 8 // max(1, samples)) if width in _WAV_NARROW]
        each = min(told, default=_WAV_NARROW[0])
    return byte_rate(samples, channels, each), tag in _WAV_FRAMES


def wav_bits(tag: int) -> float:
    """Bits of a sample by the format tag of a WAV; 0 where they are not known, or its members tell them."""
    return 4.0 if tag == _WAV_IMA else _WAV_BITS.get(tag, 0.0)


def format_rate(head: bytes) -> float:
    """The bytes per second that the beginning of a WAV states; 0 where it has no format, or one of another kind."""
    for name, at, length in _chunks(head, struct.Struct("<4sI"), 12):
        if name == b"fmt " and length >= 16:
            rate, _ = wav_rate(head, at, length)
            return rate or float(struct.unpack_from("<I", head, at + 8)[0])
    return 0.0


def wav(content: bytes, start: int) -> Seconds:
    """WAV, RF64 and BW64. `start`: where it begins.

    Decoders look for frames also where samples are said to be, and read them if there are any.
    """
    rates, begin, size, large = list[float](), 0, 0, 0
    for name, at, length in _chunks(content, struct.Struct("<4sI"), start + 12):
        if name == b"fmt ":
            rates.append(wav_rate(content, at, length)[0])
        elif name == b"ds64" and length >= 16:
            (large,) = struct.unpack_from("<Q", content, at + 8)
        elif name == b"data":
            (stated,) = struct.unpack_from("<I", content, at - 4)
            begin, size = begin or at, size + (min(large, length) if stated == _UNSTATED and large else length)
    found = sampled(content, begin, size, min(rates, default=0.0))
    if not begin:
        return found
    if not found.length:
        return frames_in(content, begin, len(content))
    return longest((found, hidden_frames(content, begin, len(content))))


def wave64(content: bytes) -> Seconds:
    """Sony's Wave64: chunks named by GUIDs, whose sizes of 64 bits include their heads and are padded to 8 bytes."""
    rates, begin, size, at = list[float](), 0, 0, 40
    for _ in range(PARTS):
        if at + 24 > len(content):
            break
        (whole,) = struct.unpack_from("<Q", content, at + 16)
        length = min(max(0, whole - 24), len(content) - at - 24)
        if content[at : at + 4] == b"fmt ":
            rates.append(wav_rate(content, at + 24, length)[0])
        elif content[at : at + 4] == b"data":
            begin, size = begin or at + 24, size + length
        at += max(24, -(-whole // 8) * 8)
    return sampled(content, begin, size, min(rates, default=0.0))


def aiff(content: bytes, start: int) -> Seconds:
    """AIFF and AIFF-C that begin at `start`."""
    rates, begin, size = list[float](), 0, 0
    for name, at, length in _chunks(content, struct.Struct(">4sI"), start + 12):
        if name == b"COMM":
            channels, _, bits, exponent, mantissa = struct.unpack_from(">hIhHQ", content, at)
            kind = content[at + 18 : at + 22] if length >= 22 else b"NONE"
            each = -(-bits // 8) * 8 if kind in _AIFC_PCM else _AIFC_BITS.get(kind, 0.0)
            samples = mantissa * 2.0 ** (max(-200, min(200, (exponent & 0x7FFF) - 16383 - 63)))
            rates.append(byte_rate(samples, channels, each))
        elif name == b"SSND":
            begin, size = begin or at, size + length
    return sampled(content, begin, size, min(rates, default=0.0))


def au(content: bytes) -> Seconds:
    """Sun's AU, in either order of bytes."""
    order = "<" if content.startswith(b"dns.") else ">"
    begin, size, encoding, samples, channels = struct.unpack_from(f"{order}5I", content, 4)
    begin = begin if 24 <= begin <= len(content) else 24
    rate = byte_rate(samples, channels, _AU_BITS.get(encoding, 0))
    return sampled(content, begin, min(size, len(content) - begin), rate)
