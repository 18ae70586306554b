"""The boxes of MP4, and where the samples of its tracks are. Pure. Source: ISO/IEC 14496-12."""

from __future__ import annotations

import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Final, NamedTuple

from relay.protocols.passthrough.containers.sound import PARTS, STEPS

NOWHERE: Final = 1 << 62  # the place of a sample that no chunk holds
_CHUNKS: Final = 1_000_000  # that are looked at
_RUNS: Final = 65_536  # of fragments, that are looked at


class Box(NamedTuple):
    """A box: its name, and where its content begins and ends."""

    name: bytes
    begin: int
    end: int


class Run(NamedTuple):
    """Samples of a fragment that follow each other."""

    at: int
    sizes: Sequence[int]  # empty where all have the same
    each: int = 0
    number: int = 0

    @property
    def size(self) -> int:
        """The bytes of all of them."""
        return self.each * self.number or sum(self.sizes)

    def samples(self, most: int) -> Iterator[tuple[int, int]]:
        """Where samples are, and their sizes."""
        at = self.at
        for size in repeat(self.each, min(most, self.number)) if self.each else self.sizes[:most]:
            yield at, size
            at += size


def boxes(content: bytes, start: int, end: int, most: int = PARTS) -> Iterator[Box]:
    """The boxes between two places. Raises struct.error when there are more than are looked at."""
    for _ in range(most):
        if start + 8 > end:
            return
        size, name = struct.unpack_from(">I4s", content, start)
        body = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", content, body)
            body += 8
        last = min(end, start + size) if size else end
        if last < body:
            return
        yield Box(name, body, last)
        start = last
    if start + 8 <= end:
        raise struct.error("more boxes than any file has")


def _numbers(content: bytes, at: int, end: int, count: int, kind: str = "I") -> Sequence[int]:
    """Numbers of a table, as many of them as it has room for."""
    found = array(kind)
    number = max(0, min(count, (min(end, len(content)) - at) // found.itemsize))
    found.frombytes(content[at : at + number * found.itemsize])
    if sys.byteorder == "little":
        found.byteswap()
    return found


class Table:
    """The samples of a track, by the tables of its `stbl`."""

    def __init__(self, content: bytes, leaves: dict[bytes, Box]) -> None:
        """`leaves`: the boxes of the table. Of those that are missing, nothing is known."""
        self._each = 0
        self._sizes: Sequence[int] = ()
        if sizes := leaves.get(b"stsz"):
            self._each, count = struct.unpack_from(">II", content, sizes.begin + 4)
            if not self._each:
                self._sizes = _numbers(content, sizes.begin + 12, sizes.end, count)
        elif sizes := leaves.get(b"stz2"):
            self._sizes = _small_sizes(content, sizes)
        self._offsets: Sequence[int] = ()
        for name, kind in ((b"stco", "I"), (b"co64", "Q")):
            if offsets := leaves.get(name):
                (number,) = struct.unpack_from(">I", content, offsets.begin + 4)
                self._offsets = _numbers(content, offsets.begin + 8, offsets.end, number, kind)
        self._groups: list[tuple[int, int]] = []  # from which chunk on each has how many samples
        if groups := leaves.get(b"stsc"):
            (number,) = struct.unpack_from(">I", content, groups.begin + 4)
            found = _numbers(content, groups.begin + 8, groups.end, 3 * number)
            self._groups = list(zip(found[::3], found[1::3], strict=False))
        self.count = len(self._sizes)
        self.chunked = 0  # samples of the chunks that are there, whatever size each of them has
        if self._each:  # as many as the chunks have of what is there, whatever is stated
            self.count = self.chunked = min(count, len(content))
            if self._offsets and self._groups:
                places = [(at, number) for at, number in self._chunks(_CHUNKS) if at < len(content)]
                self.chunked = sum(number for _, number in places)
                self.count = sum(min((len(content) - at) // self._each, number) for at, number in places)

    @property
    def each(self) -> int:
        """The bytes of each sample; 0 where they differ."""
        return self._each

    @property
    def size(self) -> int:
        """The bytes of all samples."""
        return self._each * self.count if self._each else sum(self._sizes)

    def _chunks(self, most: int) -> Iterator[tuple[int, int]]:
        """Where chunks begin, and how many samples they have."""
        groups = iter([*self._groups, (1 << 62, 0)])
        samples, (following, upcoming) = 0, next(groups)
        for number, at in enumerate(self._offsets[:most], 1):
            while number >= following:
                samples, (following, upcoming) = upcoming, next(groups)
            yield at, samples

    def samples(self, most: int = STEPS) -> Iterator[tuple[int, int]]:
        """Where samples are, and their sizes."""
        done, last = 0, min(most, self.count)
        for at, number in self._chunks(most):
            for _ in range(min(number, last - done)):
                size = self._each or self._sizes[done]
                yield at, size
                at, done = at + size, done + 1
        for index in range(done, last):
            yield NOWHERE, self._each or self._sizes[index]


def _small_sizes(content: bytes, box: Box) -> Sequence[int]:
    """Sizes of 4, 8 or 16 bits."""
    width, count = struct.unpack_from(">4xII", content, box.begin)
    data = content[box.begin + 12 : box.end]
    if width & 255 == 16:
        return _numbers(content, box.begin + 12, box.end, count, "H")
    if width & 255 == 8:
        return data[:count]
    return bytes(half for byte in data for half in (byte >> 4, byte & 15))[:count]


def fragments(content: bytes, start: int, moov: Box | None) -> dict[int, list[Run]]:
    """The samples of fragments, by their track. Raises struct.error when there are more than are looked at."""
    usual = {}  # bytes of a sample, by the track
    for box in boxes(content, moov.begin, moov.end) if moov is not None else ():
        if box.name == b"mvex":
            for leaf in boxes(content, box.begin, box.end):
                if leaf.name == b"trex":
                    track, size = struct.unpack_from(">4xI8xI", content, leaf.begin)
                    usual[track] = size
    found: dict[int, list[Run]] = {}
    left = _RUNS
    for moof in boxes(content, start, len(content), STEPS):
        if moof.name != b"moof":
            continue
        if left <= 0:
            raise struct.error("more fragments than any file has")
        for box in boxes(content, moof.begin, moof.end):
            if box.name == b"traf":
                for track, run in _runs(content, box, moof.begin - 8, usual):
                    found.setdefault(track, []).append(run)
                    left -= 1
    return found


def _runs(content: bytes, traf: Box, base: int, usual: dict[int, int]) -> Iterator[tuple[int, Run]]:
    """The samples of one track in a fragment. `base`: where the fragment begins."""
    track, size, after = 0, 0, base
    for leaf in boxes(content, traf.begin, traf.end):
        flags = int.from_bytes(content[leaf.begin + 1 : leaf.begin + 4], "big")
        at = leaf.begin + 8
        if leaf.name == b"tfhd":
            (track,) = struct.unpack_from(">I", content, leaf.begin + 4)
            size = usual.get(track, 0)
            if flags & 1:
                (base,) = struct.unpack_from(">Q", content, at)
            at += 8 * (flags & 1) + 2 * (flags & 2) + (flags & 8) // 2
            if flags & 16:
                (size,) = struct.unpack_from(">I", content, at)
            after = base
        elif leaf.name == b"trun":
            (count,) = struct.unpack_from(">I", content, leaf.begin + 4)
            if flags & 1:
                after = base + int.from_bytes(content[at : at + 4], "big", signed=True)
            at += 4 * (flags & 1) + (flags & 4)
            each = [bit for bit in (0x100, 0x200, 0x400, 0x800) if flags & bit]
            if 0x200 in each:
                numbers = _numbers(content, at, leaf.end, count * len(each))
                run = Run(after, numbers[each.index(0x200) :: len(each)])
            else:
                run = Run(after, (), size, min(count, len(content) // max(1, size)))
            yield track, run
            after += run.size
