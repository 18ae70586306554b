"""The live state of one worker that routing reads. Pure: callers pass the time, in seconds since 1970."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import accumulate
from typing import Final, TypeVar

from relay.gateway.routing.circuit_breaker import Circuit, CircuitBreaker, CircuitPlace, OpenCircuit, is_proof
from relay.gateway.routing.suspicions import Suspicions
from relay.gateway.snapshot.shares import Shares, Turn
from relay.gateway.snapshot.views import Pair
from relay.providers.classify import Failure

V = TypeVar("V")
_NEW: Final = 0.2  # weight of a new measurement in the running average
_MOST: Final = 20_000  # entries of each kind that are kept


@dataclass(slots=True)
class Fastest:
    """The search for the lowest latency among many channels."""

    first: int = 0  # the number of the channel that was measured first
    measured: int = 0  # channels, from that one on, that had a measurement or were given the chance of one
    best: int = 0  # the number of the fastest channel that was met


class OpenItems:
    """Which items are open, where nearly all are blocked. Found once by asking each, then kept up to date.

    An item becomes open when the time is over until which it is blocked, or a circuit of its place changes. One that
    has been blocked meanwhile is found to be when it is chosen, and then told to `block`.
    """

    __slots__ = ("_at", "_sums", "_waiting", "items", "position", "shares")

    def __init__(self, shares: Shares, position: int, until: Callable[[int], float]) -> None:
        """`until(item)`: when it may be chosen again, 0: now. `position`: of the log of changes."""
        self.shares, self.position = shares, position
        self._sums: list[int] | None = None  # of the weights of the items
        self.items: list[int] = []
        self._at: dict[int, int] = {}  # their numbers in the list
        self._waiting: list[tuple[float, int]] = []
        for item in range(len(shares)):
            self._look(item, until)

    def follow(self, changed: Iterable[int], position: int, until: Callable[[int], float], now: float) -> None:
        """Open what is open again. `changed`: ids of items whose circuits changed."""
        self.position = position
        for id_ in changed:
            item = self.shares.number_of(id_)
            if item is not None and item not in self._at:
                self._look(item, until)
        while self._waiting and self._waiting[0][0] <= now:
            item = heappop(self._waiting)[1]
            if item not in self._at:
                self._look(item, until)

    def _look(self, item: int, until: Callable[[int], float]) -> None:
        blocked = until(item)
        if blocked:
            heappush(self._waiting, (blocked, item))
        else:
            self._at[item] = len(self.items)
            self.items.append(item)
            self._sums = None

    def block(self, item: int, until: float) -> None:
        """An item is blocked for everybody."""
        number = self._at.pop(item)
        last = self.items.pop()
        self._sums = None
        if last != item:
            self.items[number], self._at[last] = last, number
        heappush(self._waiting, (until, item))

    def draw(self, number: float) -> int:
        """The open item at a random number in [0, 1), by weight."""
        weights = self.shares.weights
        if weights is None:
            return self.items[int(number * len(self.items))]
        if self._sums is None:
            self._sums = list(accumulate([weights[item] for item in self.items]))
        return self.items[bisect_right(self._sums, number * self._sums[-1])]

    def returns(self) -> float:
        """When the first item that is blocked may be chosen again, 0: none is blocked."""
        return self._waiting[0][0] if self._waiting else 0.0


@dataclass(slots=True)
class Live:
    """The live state of one worker that routing reads."""

    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)  # for everybody
    suspicions: Suspicions = field(default_factory=Suspicions)  # for single users
    in_flight: dict[int, int] = field(default_factory=dict)  # requests by channel
    latency: dict[tuple[int, int], float] = field(default_factory=dict)  # seconds to the first byte by (channel, model)
    # Channels and keys whose own limit is used up, and until when that is believed; key 0: the channel.
    full: dict[Pair, float] = field(default_factory=dict)
    # What is remembered between choices, by the model (negative: the channel whose keys they are) and the items.
    turns: OrderedDict[Hashable, Turn] = field(default_factory=OrderedDict)
    fastest: OrderedDict[Hashable, Fastest] = field(default_factory=OrderedDict)
    opened: OrderedDict[Hashable, OpenItems] = field(default_factory=OrderedDict)
    still: bool = False  # it is only looked at: no turn is used up

    def begin(self, channel: int) -> None:
        self.in_flight[channel] = self.in_flight.get(channel, 0) + 1

    def end(self, channel: int, key: int = 0) -> None:
        left = self.in_flight.get(channel, 0) - 1
        if left > 0:
            self.in_flight[channel] = left
        else:
            self.in_flight.pop(channel, None)
        if self.full:
            for pair in ((channel, key), (channel, 0)):
                if self.full.pop(pair, None) is not None:
                    self.breaker.note((*pair, 0))

    def was_full(self, pair: Pair, seconds: float, now: float) -> bool:
        """A request met a limit of a channel (key 0) or a key that is used up for so many seconds.

        Returns whether that was known.
        """
        known = self.full.get(pair, 0.0) > now
        if len(self.full) >= _MOST:
            self.full = {pair: until for pair, until in self.full.items() if until > now}
        if len(self.full) < _MOST:
            self.full[pair] = now + seconds
        return known

    def blocked(self, at: CircuitPlace, user: int, now: float, last_resort: bool = False) -> OpenCircuit | None:
        """The open circuit that blocks a user's attempt now, as `CircuitBreaker.blocked`."""
        found = self.breaker.blocked(at, now, last_resort)
        own = self.suspicions.of(user)
        mine = own.blocked(at, now, last_resort) if own is not None else None
        return mine if found is None or (mine is not None and mine.until > found.until) else found

    def enter(self, at: CircuitPlace, user: int, now: float) -> Sequence[Circuit]:
        """Begin a user's attempt. Returns the circuits that it probes, for `circuit_breaker.leave`."""
        probed = self.breaker.enter(at, now)
        own = self.suspicions.of(user)
        return probed if own is None else (*probed, *own.enter(at, now))

    def succeeded(self, at: CircuitPlace, user: int, began: float) -> None:
        """An answer to a user's request began."""
        self.breaker.succeeded(at, began)
        self.suspicions.succeeded(at, user, began)

    def failed(self, at: CircuitPlace, user: int, failure: Failure, began: float, now: float) -> bool:
        """A user's attempt failed. Returns whether that opened a circuit for everybody that was closed."""
        if not is_proof(failure):
            self.suspicions.failed(at, user, failure, began, now)
        return self.breaker.failed(at, user, failure, began, now)

    def measured(self, channel: int, model: int, seconds: float) -> None:
        """Add a measurement of the seconds to the first byte."""
        before = self.latency.get((channel, model))
        self.latency[channel, model] = seconds if before is None else before + _NEW * (seconds - before)

    def turn(self, whose: Hashable, size: int, random: Callable[[], float]) -> Turn:
        """How far the round robin of so many items has come. It begins somewhere."""
        found = self.turns.get(whose)
        if found is None:
            found = _keep(self.turns, whose, Turn(int(random() * size)))
        return found.copy() if self.still else found

    def fastest_of(self, whose: Hashable, size: int, random: Callable[[], float]) -> Fastest:
        """How far the search for the fastest of so many channels has come. It begins somewhere."""
        found = self.fastest.get(whose)
        if found is None:
            found = _keep(self.fastest, whose, Fastest(int(random() * size)))
        return Fastest(found.first, found.measured, found.best) if self.still else found

    def looked_at(self) -> Live:
        """The same for an explanation, which uses up no turn."""
        return Live(
            self.breaker, self.suspicions, self.in_flight, self.latency, self.full, self.turns, self.fastest, still=True
        )

    def keep(self, channels: frozenset[int]) -> None:
        """Forget what is remembered of channels that there are no more."""
        self.latency = {place: seconds for place, seconds in self.latency.items() if place[0] in channels}
        self.full.clear()
        self.opened.clear()


def _keep(entries: OrderedDict[Hashable, V], key: Hashable, entry: V) -> V:
    """The oldest are forgotten when there are too many."""
    entries[key] = entry
    if len(entries) > _MOST:
        entries.popitem(last=False)
    return entry
