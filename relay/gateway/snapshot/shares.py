"""Weighted items, prepared so that a choice among them costs the same for one and for ten thousand. Pure.

Items are numbered from 0; `ids` tells them apart when the configuration changes. There are three ways to choose:

- A draw: the weights are added up once, and a random number is looked up in the sums.
- A turn: each item has places in a fixed order, as many as its weight needs, spread evenly. A turn goes one place on.
- A conversation: each item owns cells of a table, as many as its weight needs. A conversation looks at cells in an
  order of its own, the same in every process, and takes the first whose item is open. So while an item is out of
  service, its own conversations move, and come back; an item that is added takes empty cells only.

Where weights are so different that the places would be too many, a place counts only for a part of its choices, so that
every item has exactly its share.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate
from math import log
from typing import Final

_EXACT: Final = 64  # places for which weights are taken as they are, beside four for each item
_ONE: Final = 1 << 24  # the odds of a place that always counts
_MASK: Final = (1 << 64) - 1
# The linear congruential generator of Knuth's MMIX; only the upper bits are used.
_TIMES, _PLUS = 6364136223846793005, 1442695040888963407
_MIX: Final = 0x9E3779B97F4A7C15  # of Fibonacci hashing: spreads numbers that follow each other
_EMPTY: Final = -1
CELLS_TRIED: Final = 128  # by a conversation, before all open items are compared


class Turn:
    """How far a round robin has come."""

    __slots__ = ("credit", "place")

    def __init__(self, place: int = 0, credit: dict[int, int] | None = None) -> None:
        self.place = place
        self.credit: dict[int, int] = credit if credit is not None else {}  # of items whose places count in part

    def copy(self) -> Turn:
        return Turn(self.place, dict(self.credit))


class Shares:
    """Items with ids and weights. Immutable, but for tables that are made when they are first needed."""

    __slots__ = (
        "_cells", "_counts", "_odds", "_order", "_places", "_reserved", "_shift", "_sums",
        "ids", "name", "weights",
    )  # fmt: skip

    def __init__(self, ids: Sequence[int], weights: Sequence[int], reserved: Sequence[tuple[int, int]] = ()) -> None:
        """`reserved`: ids and weights of items that are out of service and keep their cells. Weights below 1 are 1."""
        self.ids = ids
        self.name = hash(tuple(ids))  # the same for the same items, in this process
        own = [weight if weight > 1 else 1 for weight in weights]
        # Also as sums; None: all are the same.
        self.weights = own if own and min(own) != max(own) else None
        self._sums: list[int] | None = list(accumulate(own)) if self.weights is not None else None
        self._reserved: list[tuple[int, int]] = []  # ids, and their cells
        self._counts: list[int] | None = None  # places of each item, None: one for each
        self._odds: list[int] | None = None  # of the places of each item, None: they always count
        self._order: array[int] | None = None
        self._cells: array[int] | None = None
        self._shift = 0
        self._places: dict[int, int] | None = None
        self._divide(own, reserved)

    def __len__(self) -> int:
        return len(self.ids)

    def _divide(self, weights: list[int], reserved: Sequence[tuple[int, int]]) -> None:
        """Work out the places of each item. Those out of service count as well, so that nothing moves as they go."""
        every = weights + [max(weight, 1) for _, weight in reserved] if reserved else weights
        if self.weights is None and (not every or min(every) == max(every)):
            self._reserved = [(id_, 1) for id_, _ in reserved]
            return
        unit = _unit(every)
        self._counts = [-(-weight // unit) for weight in weights]
        self._reserved = [(id_, -(-max(weight, 1) // unit)) for id_, weight in reserved]
        if sum(self._counts) * unit != sum(weights):
            pairs = zip(weights, self._counts, strict=True)
            self._odds = [weight * _ONE // (count * unit) for weight, count in pairs]

    def weight(self, item: int) -> int:
        return 1 if self.weights is None else self.weights[item]

    def number_of(self, id_: int) -> int | None:
        """The number of the item with an id."""
        if self._places is None:
            self._places = {one: item for item, one in enumerate(self.ids)}
        return self._places.get(id_)

    def prepare(self, turns: bool = False) -> None:
        """Make the tables now, where it does not matter how long that takes."""
        if len(self.ids) > 1:
            self._cells = self._cells or self._lay_out()
            if turns and self._counts is not None:
                self._order = self._order or self._spread(self._counts)

    # -- draws -------------------------------------------------------------------------------------------------------

    def draw(self, number: float) -> int:
        """The item at a random number in [0, 1)."""
        sums = self._sums
        if sums is None:
            return int(number * len(self.ids))
        return bisect_right(sums, number * sums[-1])

    def draw_of(self, items: Sequence[int], number: float) -> int:
        """The same among some of the items."""
        if self.weights is None or len(items) == 1:
            return items[int(number * len(items))]
        sums = list(accumulate([self.weights[item] for item in items]))
        return items[bisect_right(sums, number * sums[-1])]

    # -- turns -------------------------------------------------------------------------------------------------------

    def next(self, turn: Turn) -> int:
        """The item whose turn it is; the turn goes on."""
        counts = self._counts
        if counts is None:
            item = turn.place % len(self.ids)
            turn.place = item + 1
            return item
        order = self._order = self._order or self._spread(counts)
        odds, place = self._odds, turn.place
        while True:
            item = order[place % len(order)]
            place = place % len(order) + 1
            if odds is not None and odds[item] != _ONE:
                credit = turn.credit.get(item, 0) + odds[item]
                turn.credit[item] = credit if credit < _ONE else credit - _ONE
                if credit < _ONE:
                    continue
            turn.place = place
            return item

    def _spread(self, counts: list[int]) -> array[int]:
        """The order of turns: the places of each item as far from each other as they can be."""
        places = [((part + 0.5) / count, item) for item, count in enumerate(counts) for part in range(count)]
        places.sort()
        return array("i", [item for _, item in places])

    # -- conversations -----------------------------------------------------------------------------------------------

    def walk(self, seed: int) -> Iterator[int]:
        """The items at the cells that a conversation looks at, of which it takes the first that is open.

        `seed`: its 64 bits. Ends after CELLS_TRIED cells; an item may come several times.
        """
        cells = self._cells = self._cells or self._lay_out()
        shift, odds, size = self._shift, self._odds, len(self.ids)
        for _ in range(CELLS_TRIED):
            seed = (seed * _TIMES + _PLUS) & _MASK
            item = cells[seed >> shift]
            if 0 <= item < size and (odds is None or (seed >> 16) & (_ONE - 1) < odds[item]):
                yield item

    def nearest(self, seed: int, items: Sequence[int]) -> int:
        """Of these items, the one that a conversation takes whose cells led to none of them; by rendezvous."""
        ids, weights = self.ids, self.weights

        def score(item: int) -> float:
            number = (((ids[item] + 1) * _MIX ^ seed) & _MASK) * _TIMES & _MASK
            number = ((number ^ number >> 29) * _MIX & _MASK) >> 11
            return -log((number + 1) / (1 << 53)) / (1 if weights is None else weights[item])

        return min(items, key=score)

    def _lay_out(self) -> array[int]:
        """The cells: a hash table with open addressing, at most half full. The oldest items choose first."""
        counts, size = self._counts, len(self.ids)
        owners = [(id_, item, 1 if counts is None else counts[item]) for item, id_ in enumerate(self.ids)]
        owners += [(id_, size, count) for id_, count in self._reserved]
        owners.sort()
        bits = max(2 * sum(count for _, _, count in owners) - 1, 1).bit_length()
        cells, shift = array("i", [_EMPTY]) * (1 << bits), 64 - bits
        for id_, item, count in owners:
            for part in range(count):
                seed = ((id_ << 12 ^ part) + 1) * _MIX & _MASK
                while True:
                    seed = (seed * _TIMES + _PLUS) & _MASK
                    if cells[seed >> shift] == _EMPTY:
                        cells[seed >> shift] = item
                        break
        self._shift = shift
        return cells


def _unit(weights: Sequence[int]) -> int:
    """The weight that one place stands for. Powers of two, so that few changes of weights change it."""
    total = sum(weights)
    if total <= 4 * len(weights) + _EXACT:
        return 1
    return 1 << ((total - 1) // len(weights)).bit_length()


def seeds_of(conversation: str) -> tuple[int, int]:
    """By which a conversation finds its items among two kinds of them, the same in every process."""
    digest = blake2b(conversation.encode("utf-8", "replace"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
