"""Sounds that tests build: blocks of AAC, frames around them, boxes of MP4."""

from __future__ import annotations

import struct


class _Bits:
    def __init__(self) -> None:
        self.value = self.size = 0

    def put(self, value: int, size: int) -> None:
        self.value, self.size = self.value << size | value, self.size + size

    def content(self) -> bytes:
        rest = -self.size % 8
        return (self.value << rest).to_bytes((self.size + rest) // 8, "big")


def aac_block(size: int = 6) -> bytes:
    """One channel of silence, filled up to so many bytes, 6 at least."""
    bits = _Bits()
    bits.put(0, 3 + 4 + 8)  # a channel, its tag and its gain
    bits.put(0, 1 + 2 + 1 + 6 + 1)  # long windows without bands
    bits.put(0, 3)  # no pulses, filters or gains
    left = 8 * size - bits.size - 3
    while left >= 7:
        number = min((left - 7) // 8, 14) if left < 15 + 8 * 15 else min((left - 15) // 8, 269)
        bits.put(6, 3)
        bits.put(min(number, 15), 4)
        if number > 14:
            bits.put(number - 14, 8)
        bits.put(0, 8 * number)
        left = 8 * size - bits.size - 3
    bits.put(7, 3)
    return bits.content().ljust(size, b"\0")


def adts_frame(body: bytes, rate: int = 8, kind: int = 2) -> bytes:
    """A frame of 1,024 samples. `rate`: its index, 8 for 16 kHz."""
    size = 7 + len(body)
    head = 0xFFF1 << 40 | (kind - 1) << 38 | rate << 34 | 1 << 30 | size << 13 | 0x7FF << 2
    return head.to_bytes(7, "big") + body


def loas_frame(body: bytes, rate: int = 8, told: bool = True, blocks: int = 1) -> bytes:
    """A frame of LOAS with its configuration, or without."""
    bits = _Bits()
    if told:
        bits.put(0, 1 + 1)
        bits.put(1, 1)
        bits.put(blocks - 1, 6)
        bits.put(0, 4 + 3)
        for value, size in ((2, 5), (rate, 4), (1, 4), (0, 3)):
            bits.put(value, size)
        bits.put(0, 3)
        bits.put(255, 8)
        bits.put(0, 1 + 1)
    else:
        bits.put(1, 1)
    for _ in range(blocks):
        size = len(body)
        while size >= 255:
            bits.put(255, 8)
            size -= 255
        bits.put(size, 8)
        bits.put(int.from_bytes(body, "big"), 8 * len(body))
    content = bits.content()
    return (0x2B7 << 13 | len(content)).to_bytes(3, "big") + content


def box(name: bytes, *content: bytes) -> bytes:
    """A box of MP4."""
    body = b"".join(content)
    return struct.pack(">I4s", len(body) + 8, name) + body


def esds(rate: int, kind: int = 2) -> bytes:
    """What the decoder of AAC is told: the index of its rate, and its kind."""
    config = struct.pack(">H", kind << 11 | rate << 7 | 1 << 3)
    decoder = (
        b"\x04" + bytes([13 + len(config) + 2]) + b"\x40\x15" + bytes(11) + b"\x05" + bytes([len(config)]) + config
    )
    return box(b"esds", bytes(4), b"\x03", bytes([3 + len(decoder)]), bytes(3), decoder)


def m4a(
    samples: list[bytes],
    description: bytes,
    *,
    places: list[int] | None = None,
    edits: list[tuple[int, int]] | None = None,
) -> bytes:
    """AAC at 16 kHz, one sample in each chunk.

    `places`: which of the samples each chunk is, instead of all in turn. `edits`: the milliseconds that are played, and
    from which sample of sound on.
    """
    order = list(range(len(samples))) if places is None else places
    starts = [sum(map(len, samples[:index])) for index in range(len(samples))]
    sound = b"".join(samples)
    head = box(b"ftyp", b"M4A \0\0\0\0M4A ")
    mdat = box(b"mdat", sound)
    first = len(head) + 8
    entry = box(b"mp4a", bytes(16), struct.pack(">HHII", 1, 16, 0, 16_000 << 16), description)
    table = box(
        b"stbl",
        box(b"stsd", struct.pack(">II", 0, 1), entry),
        box(b"stts", struct.pack(">IIII", 0, 1, len(order), 1024)),
        box(b"stsc", struct.pack(">IIIII", 0, 1, 1, 1, 1)),
        box(b"stsz", struct.pack(">III", 0, 0, len(order)), *(struct.pack(">I", len(samples[n])) for n in order)),
        box(b"stco", struct.pack(">II", 0, len(order)), *(struct.pack(">I", first + starts[n]) for n in order)),
    )
    listed = [struct.pack(">IiI", duration, time, 1 << 16) for duration, time in edits or []]
    edited = box(b"edts", box(b"elst", struct.pack(">II", 0, len(listed)), *listed)) if edits else b""
    length = 1024 * len(order)
    media = box(
        b"mdia",
        box(b"mdhd", bytes(12), struct.pack(">IIHH", 16_000, length, 0x55C4, 0)),
        box(b"hdlr", bytes(8), b"soun", bytes(13)),
        box(b"minf", box(b"smhd", bytes(8)), box(b"dinf", _dref()), table),
    )
    track = box(b"trak", box(b"tkhd", b"\0\0\0\7", bytes(8), struct.pack(">I", 1), bytes(68)), edited, media)
    clock = box(b"mvhd", bytes(12), struct.pack(">II", 1000, length // 16), struct.pack(">IH", 1 << 16, 256), bytes(74))
    return head + mdat + box(b"moov", clock, track)


def _dref() -> bytes:
    return box(b"dref", struct.pack(">II", 0, 1), box(b"url ", b"\0\0\0\1"))
