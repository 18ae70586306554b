"""Where a block of AAC ends. Pure. Source: ISO/IEC 14496-3, 4.4.2, 4.6.3 and annex 4.A.

A packet has one block, but decoders read on where it has more. Nothing says where a block ends but all that is in it,
down to the codes of its spectrum.
"""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

MAIN, LC, LTP = 1, 2, 4  # kinds of objects whose blocks are read
# The codes of scale factors, then those of spectra by their book: how many have how many bits, or a digit for each in
# their order, which says what follows it: as many signs, and three more for each value that goes on.
_BOOKS: Final = (
    "1x1 3x1 4x3 5x2 6x4 7x3 8x5 9x4 10x6 11x6 12x6 13x5 14x8 15x4 16x7 17x3 18x7 19x46",
    "1x1 5x8 7x24 9x24 10x8 11x16",
    "3x1 4x1 5x7 6x24 7x15 8x19 9x14",
    "1x1 4:1111 5:22 6:222323 7:433 8:11223 9:232331221224334 10:323244332333223 11:24334423 12:333334444 "
    "13:223 14:343 15:44432 16:33",
    "4:4333312022 5:221211 7:444433333 8:333333322222222222211 9:11444444 10:33333333343334 11:44222222433 "
    "12:33",
    "1x1 4x4 5x4 7x4 8x12 9x12 10x12 11x18 12x10 13x4",
    "4x9 6x16 7x13 8x8 9x23 10x8 11x4",
    "1x1 3:11 4:2 6:2211 7:22211 8:2222222211 9:22212122222222 10:211222222222222 11:11222222 12:2222",
    "3:2 4:21212 5:0112222 6:2222211222 7:22222221212222 8:222121222222222 9:22121222 10:2112",
    "1x1 3:11 4:2 6:2211 7:222 8:11222222 9:22112222222 10:12122222222122222222 "
    "11:1222122221222211222222222222212 12:22122222222222222222222122122222221222 "
    "13:22222222222212212222122222222222 14:22222222222222 15:2222",
    "4:222 5:21122222 6:11222202211222 7:22222222212122222 8:2222222121222222222222222 "
    "9:2221222221222222222222222221212 10:22222212222221222222222222222221212122222 "
    "11:2222222222121222122212 12:22222122",
    "4:02 5:811222 6:2221212 7:2222221122222222 "
    "8:22222225555525121525555222225522555225255525225522215522221 "
    "9:2552252522222225221222222122222222222222122222222222422 "
    "10:22224212222222222222222222222222222221222222222222222222122222222222222222222222222211222222222 "
    "11:2222222222222222212212122212222211222212212 12:112112",
)  # fmt: skip
_LONGEST: Final = 19  # bits of a code
_SCALES, _LARGE = 0, 11  # books: of scale factors, and with values that go on
_NOISE, _RELATED = 13, (14, 15)  # books of bands without a spectrum
# The widths of the bands of a spectrum by the index of its rate; and of the short ones.
_LONG: Final = (
    "4*14 8*5 12*5 16*2 24 28 36 44 64*11",
    "4*14 8*4 12*3 16*3 20 24*2 28 36 40*18",
    "4*10 8*7 12*4 16*2 20*2 24*2 28*2 32*19 96",
    "4*10 8*7 12*4 16*2 20*2 24*2 28*2 32*22",
    "4*11 8*10 12*4 16*3 20*2 24*2 28*2 32 36*2 40 44 48 52*2 64*5",
    "8*11 12*9 16*4 20*3 24*2 28*2 32 36 40*2 44 48 52 56 60 64*3",
    "12*13 16*7 20*4 24*3 28*2 32 36*2 40 44 48 52 56 60 64 80",
)
_SHORT: Final = (
    "4*6 8*3 16 28 36",
    "4*6 8*3 16 28 36",
    "4*5 8*3 12*3 16*3",
    "4*5 8*3 12*3 16*3",
    "4*7 8*3 12*2 16*2 20",
    "4*8 8*2 12*2 16 20*2",
    "4*7 8*4 12 16 20*2",
)
_KINDS: Final = (0, 0, 1, 2, 2, 3, 4, 4, 5, 5, 5, 6, 6)  # of rates, among these
_PREDICTED: Final = (33, 33, 38, 40, 40, 40, 41, 41, 37, 37, 37, 34, 34)  # bands, at most
_LTP_BANDS: Final = 40
_SINGLE, _PAIR, _COUPLED, _LOW, _DATA, _PROGRAM, _FILL, _END = range(8)  # elements
_MOST_ELEMENTS: Final = 64  # of a block


class _Invalid(Exception):
    """What is read is no block, or one of a kind that is not known here."""


class _Window(NamedTuple):
    """How the spectrum of a channel is divided."""

    short: bool
    bands: int
    groups: tuple[int, ...]  # the windows of each


@cache
def _book(number: int) -> tuple[int, bytes, bytes]:
    """The bits of the longest code of a book; by as many bits, those of the code with which they begin, and its digit.

    Codes of one length follow each other, and those of the next length follow them.
    """
    codes = list[tuple[int, int]]()
    for entry in _BOOKS[number].split():
        length, mark, told = entry.partition(":" if ":" in entry else "x")
        codes += [(int(length), digit) for digit in (map(int, told) if mark == ":" else [0] * int(told))]
    longest = codes[-1][0]
    lengths = b"".join(bytes([length]) * (1 << longest - length) for length, _ in codes)
    return longest, lengths, b"".join(bytes([digit]) * (1 << longest - length) for length, digit in codes)


@cache
def _widths(rate: int, short: bool) -> tuple[int, ...]:
    found = list[int]()
    for entry in (_SHORT if short else _LONG)[_KINDS[rate]].split():
        width, _, number = entry.partition("*")
        found += [int(width)] * int(number or 1)
    return tuple(found)


def block_end(content: bytes, at: int, end: int, kind: int, rate: int) -> int:
    """Where the block ends that begins at a place, 0 where there is none, or it is not known here.

    `kind`: of objects. `rate`: the index of the samples per second.
    """
    reader = _Reader(content[at:end], kind, rate)
    try:
        reader.block()
    except _Invalid:
        return 0
    return at + (reader.at + 7) // 8 if reader.at <= reader.bits else 0


class _Reader:
    """Reads one block."""

    def __init__(self, content: bytes, kind: int, rate: int) -> None:
        self.bits, self.at = 8 * len(content), 0
        self._value = int.from_bytes(content + bytes(4), "big")
        self._end = self.bits + 32
        self._kind, self._rate = kind, rate

    def read(self, number: int) -> int:
        self.at += number
        if self.at > self._end:
            raise _Invalid
        return self._value >> self._end - self.at & (1 << number) - 1

    def block(self) -> None:
        for _ in range(_MOST_ELEMENTS):
            element = self.read(3)
            if element == _END:
                return
            if element in (_SINGLE, _LOW):
                self.read(4)
                self._channel(None)
            elif element == _PAIR:
                self._pair()
            elif element == _COUPLED:
                self._coupled()
            elif element == _DATA:
                self._data()
            elif element == _PROGRAM:
                self._program()
            elif element == _FILL:
                count = self.read(4)
                self._skip(8 * (count + self.read(8) - 1 if count == 15 else count))
        raise _Invalid

    def _skip(self, number: int) -> None:
        self.at += number
        if self.at > self.bits:
            raise _Invalid

    def _align(self) -> None:
        self.at += -self.at % 8

    def _data(self) -> None:
        self.read(4)
        aligned, count = self.read(1), self.read(8)
        if count == 255:
            count += self.read(8)
        if aligned:
            self._align()
        self._skip(8 * count)

    def _program(self) -> None:
        """A description of channels."""
        self.read(10)
        front, side, back, low, data, coupled = (self.read(number) for number in (4, 4, 4, 2, 3, 4))
        for number in (4, 4, 3):
            if self.read(1):
                self.read(number)
        self._skip(5 * (front + side + back + coupled) + 4 * (low + data))
        self._align()
        self._skip(8 * self.read(8))

    def _pair(self) -> None:
        self.read(4)
        window = None
        if self.read(1):
            window = self._window(2)
            if self.read(2) == 1:
                self._skip(window.bands * len(window.groups))
        self._channel(window)
        self._channel(window)

    def _coupled(self) -> None:
        """A channel that is added to others, with the factors for each of them."""
        self.read(4)
        switched, gains = self.read(1), 0
        for _ in range(self.read(3) + 1):
            gains += 1
            pair = self.read(1)
            self.read(4)
            if pair:
                gains += self.read(2) == 3
        self.read(4)
        books, _ = self._channel(None)
        for _ in range(gains - 1):
            if switched or self.read(1):
                self._code(_SCALES)
            else:
                for book, _, _ in books:
                    if book:
                        self._code(_SCALES)

    def _window(self, channels: int = 1) -> _Window:
        self.read(1)
        short = self.read(2) == 2
        self.read(1)
        bands = self.read(4 if short else 6)
        if bands > len(_widths(self._rate, short)):
            raise _Invalid
        groups = [1]
        if short:
            grouped = self.read(7)
            for bit in range(6, -1, -1):
                if grouped >> bit & 1:
                    groups[-1] += 1
                else:
                    groups.append(1)
        elif self.read(1):
            self._predictors(bands, channels)
        return _Window(short, bands, tuple(groups))

    def _predictors(self, bands: int, channels: int) -> None:
        if self._kind == MAIN:
            if self.read(1):
                self.read(5)
            self._skip(min(bands, _PREDICTED[self._rate]))
        elif self._kind == LTP:
            for _ in range(channels):
                if self.read(1):
                    self.read(14)
                    self._skip(min(bands, _LTP_BANDS))
        else:
            raise _Invalid

    def _channel(self, shared: _Window | None) -> tuple[list[tuple[int, int, int]], _Window]:
        """One channel. Returns the book of each band with the windows of its group, and the place of the band."""
        self.read(8)
        window = shared or self._window()
        books = self._sections(window)
        noisy = False
        for book, _, _ in books:
            if book == _NOISE and not noisy:
                noisy = True
                self.read(9)
            elif book:
                self._code(_SCALES)
        if self.read(1):  # pulses
            if window.short:
                raise _Invalid
            count = self.read(2)
            self.read(6)
            self._skip(9 * (count + 1))
        if self.read(1):
            self._filters(window)
        if self.read(1):  # gain control, of a kind that decoders do not read
            raise _Invalid
        widths = _widths(self._rate, window.short)
        for book, windows, band in books:
            if 0 < book <= _LARGE:
                self._spectrum(book, windows * widths[band] // (4 if book < 5 else 2))
        return books, window

    def _sections(self, window: _Window) -> list[tuple[int, int, int]]:
        width = 3 if window.short else 5
        most, found = (1 << width) - 1, list[tuple[int, int, int]]()
        for windows in window.groups:
            band = 0
            while band < window.bands:
                book, length, more = self.read(4), 0, most
                if book == 12:
                    raise _Invalid
                while more == most:
                    more = self.read(width)
                    length += more
                if band + length > window.bands:
                    raise _Invalid
                found += [(book, windows, place) for place in range(band, band + length)]
                band += length
        return found

    def _filters(self, window: _Window) -> None:
        number, length, order = (1, 4, 3) if window.short else (2, 6, 5)
        for _ in range(8 if window.short else 1):
            filters = self.read(number)
            fine = self.read(1) if filters else 0
            for _ in range(filters):
                self.read(length)
                if each := self.read(order):
                    self.read(1)
                    self._skip(each * (fine + 3 - self.read(1)))

    def _code(self, number: int) -> int:
        """Read a code, and return its digit."""
        longest, lengths, digits = _book(number)
        rest = self._end - self.at - longest
        if rest < 0:
            raise _Invalid
        index = self._value >> rest & (1 << longest) - 1
        self.at += lengths[index]
        return digits[index]

    def _spectrum(self, number: int, codes: int) -> None:
        longest, lengths, digits = _book(number)
        value, mask, rest = self._value, (1 << longest) - 1, self._end - longest
        at = self.at
        for _ in range(codes):
            if at > self.bits:
                raise _Invalid
            index = value >> rest - at & mask
            digit = digits[index]
            at += lengths[index]
            if digit < 3 or number != _LARGE:
                at += digit
                continue
            at += digit % 3
            for _ in range(digit // 3):
                self.at, more = at, 4
                while self.read(1):
                    more += 1
                self._skip(more)
                at = self.at
        self.at = at
