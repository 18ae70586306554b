"""The seconds of packets of AAC, by what its decoder is told. Pure. Source: ISO/IEC 14496-3, 1.6.2.1 and 4.5.3.1."""

from __future__ import annotations

import secrets
import zlib
from typing import Final, NamedTuple

from relay.protocols.passthrough.codecs.aac_blocks import LC, LTP, MAIN, block_end

AAC_RATES: Final = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350)
AAC_FRAME: Final = 1024  # samples
_SHORTER: Final = 960  # samples of a frame, of which broadcasts make use
_UNTOLD_RATE: Final = (8000, 48_000)  # samples per second that are believed of a container
_LARGEST: Final = 768  # bytes of a frame, for each channel
_CHANNELS: Final = (2, 1, 2, 3, 4, 5, 6, 8)  # by the configuration of channels; 0: described elsewhere

_SPECTRAL: Final = (5, 29)  # kinds that describe their core behind them
_SALT: Final = secrets.randbits(32)
_FIRST: Final = 24  # packets that are looked into
_LARGE: Final = 2.5  # times the mean size
_MOST_LOOKED: Final = 1000  # of those
_ONE_OF: Final = 64  # packets: how many of the others
_STRANGE: Final = 0.2  # share of them that may be damaged

AAC: Final = 0x40  # a kind of objects


class AacConfig(NamedTuple):
    """What an AudioSpecificConfig says."""

    kind: int  # of objects; of the core, where another is built on it
    rate: int  # samples per second
    channels: int
    shorter: bool  # its frames have fewer samples
    bits: int  # how many it has, at least

    @classmethod
    def of(cls, config: bytes) -> AacConfig | None:
        """None: there is none."""
        if len(config) < 2:
            return None
        bits, left = int.from_bytes(config[:16].ljust(16, b"\0"), "big"), 128

        def read(number: int) -> int:
            nonlocal left
            left -= number
            return bits >> left & (1 << number) - 1

        def kind_of() -> int:
            kind = read(5)
            return kind if kind < 31 else 32 + read(6)

        def rate_of() -> int:
            index = read(4)
            return read(24) if index == 15 else AAC_RATES[index] if index < len(AAC_RATES) else 0

        kind, rate, channels = kind_of(), rate_of(), read(4)
        if kind in _SPECTRAL:
            rate_of()
            kind = kind_of()
        shorter = bool(read(1))
        if read(1):
            read(14)
        read(1)
        return cls(kind, rate, _CHANNELS[channels] if channels < len(_CHANNELS) else 2, shorter, 128 - left)

    @property
    def samples(self) -> int:
        """Of a frame."""
        return _SHORTER if self.shorter else AAC_FRAME

    @property
    def is_known(self) -> bool:
        """Whether it can be told how many frames a packet has."""
        return self.kind in (MAIN, LC, LTP) and not self.shorter


def described(stream: bytes) -> tuple[int, bytes]:
    """The kind of objects of a stream as MPEG-4 describes it, and what its decoder is told.

    AAC of which nothing is told, where that is not there.
    """
    at, kind = 0, AAC
    for tag, skipped in ((3, 3), (4, 13), (5, 0)):
        if at >= len(stream) or stream[at] != tag:
            return kind, b""
        size, at = 0, at + 1
        while at < len(stream) and stream[at] & 128:
            size, at = size << 7 | stream[at] & 127, at + 1
        if at + 1 >= len(stream):
            return kind, b""
        size, at = size << 7 | stream[at], at + 1
        if tag == 3 and at + 3 < len(stream):
            flags = stream[at + 2]
            at += (2 if flags & 128 else 0) + (1 + stream[at + 3] if flags & 64 else 0) + (2 if flags & 32 else 0)
        elif tag == 4:
            kind = stream[at]
        elif tag == 5:
            return kind, stream[at : at + size]
        at += skipped
    return kind, b""


class BlockCheck:
    """Looks into some packets of a stream, whether each has one block.

    Which ones cannot be known beforehand: the first, those that are larger than others, and others by chance.
    """

    def __init__(self, kind: int, index: int) -> None:
        """`kind`: of objects. `index`: of the samples per second among `AAC_RATES`."""
        self._kind, self._index = kind, min(index, len(AAC_RATES) - 1)
        self._seen = self._size = self._looked = self._strange = 0
        self.failed = False  # decoders may read more of it than it has packets

    def look(self, content: bytes, at: int, size: int) -> None:
        """Count a packet, and look into it if it is one of those."""
        self._seen, self._size = self._seen + 1, self._size + size
        if self._seen > _FIRST and size * self._seen < _LARGE * self._size:
            if zlib.crc32(content[at : at + 16], _SALT) % _ONE_OF:
                return
        elif self._seen > _FIRST and self._looked >= _MOST_LOOKED:
            return
        self._looked += 1
        end = block_end(content, at, at + size, self._kind, self._index)
        if not end:
            self._strange += 1
            self.failed = self._strange > 1 + _STRANGE * self._looked
        elif end < at + size and any(content[end : at + size]):
            self.failed = self.failed or bool(block_end(content, end, at + size, self._kind, self._index))


class AacPackets:
    """Counts the packets of one stream."""

    def __init__(self, config: bytes, rate: float) -> None:
        """`config`: an AudioSpecificConfig, or nothing. `rate`: samples per second as the container states them.

        Of HE-AAC, the rate is that of its core, whose frames are as long.
        """
        found = AacConfig.of(config)
        told: float = found.rate if found is not None else 0
        if found is None:
            found = AacConfig(LC, 0, 2, False, 0)
        told = told or min(max(rate, _UNTOLD_RATE[0]), _UNTOLD_RATE[1])
        self._each = found.samples / min(max(told, AAC_RATES[-1]), AAC_RATES[0])
        self._largest = _LARGEST * found.channels
        nearest = min(range(len(AAC_RATES)), key=lambda index: abs(AAC_RATES[index] - told))
        self._check = BlockCheck(found.kind, nearest)
        self._known = found.is_known

    def __call__(self, content: bytes, at: int, size: int) -> float:
        """A packet that is larger than any frame has several, all of which decoders read. How many cannot be told.

        Negative where a packet within this size has several.
        """
        if not self._known:
            return -1.0
        if not 0 < size <= self._largest:
            return 0.0
        if at + size <= len(content):
            self._check.look(content, at, size)
        return -1.0 if self._check.failed else self._each
