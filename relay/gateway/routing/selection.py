"""Selects the channel and key to try next, from routes, earlier attempts and the live state. Pure.

A choice costs the same for one (channel, key) and for ten thousand: an item is drawn from tables that are made with the
configuration (`relay.gateway.snapshot.shares`), and another one while it is blocked. Where many draws find nothing,
which items are open is found once, and kept up to date (`OpenItems`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Final

from portal.lib.strategy import Strategy
from relay.gateway.routing.circuit_breaker import CircuitBreaker
from relay.gateway.routing.live import Live, OpenItems
from relay.gateway.snapshot.routes import Candidate, Keys, Routes, Tier
from relay.gateway.snapshot.shares import Shares, seeds_of
from relay.gateway.snapshot.views import ChannelView, Pair, Route

_EXPLORE: Final = 0.05  # share of requests that go to slower channels, to measure them again
_DRAWS: Final = 24  # before it is asked which items are open; with half of them blocked, one choice in 10**7 asks
_FEW: Final = 4  # channels of which the least busy or fastest is looked for, rather than the better one of two draws
_SCANNED: Final = 16  # items that are all looked at without remembering which are open
_LOOKED: Final = 64  # channels that one choice looks at for those without a measurement
_TURNS: Final = 64  # that are passed over, before it is asked which items are open
_OPENED: Final = 1_000  # tables of open items that are kept
_NONE: Final = Shares((), ())


@dataclass(slots=True)
class RoutePreference:
    """What the route of a request depends on."""

    model: int  # its id
    strategy: str = ""  # the model's own, empty: none
    default: str = Strategy.WEIGHTED  # the installation's strategy
    conversation: str = ""  # requests of the same conversation go to the same channel; empty: none
    pinned: int = 0  # the channel that the token names, 0: any
    prefer: Pair | None = None  # the channel and key that store the previous response; first while they are available
    user: int = 0  # whose request it is; 0: nobody's


def pick(
    routes: Sequence[Route],
    tried: Set[Pair],
    live: Live,
    preference: RoutePreference,
    now: float,
    random: Callable[[], float],
) -> Candidate | None:
    """The next (channel, key): a channel of the highest priority by the strategy, and one of its keys by weight or in
    turn.

    Pairs that were tried or are cooling down are skipped, so siblings of a failed channel come before a lower priority.
    `tried` has (channel, 0) for all keys of a channel. A pinned channel is tried even while it cools down; so is one
    that fails only now and then, when nothing else is left. What is at a limit of its own comes before that. `random`
    returns numbers in [0, 1).
    """
    calm = not live.breaker.circuits and live.suspicions.of(preference.user) is None and not live.full
    if len(routes) == 1 and not tried and calm and not preference.pinned:
        only = routes[0].channel  # most models of most portals
        if len(only.keys) == 1 and not only.refusal:
            return Candidate(routes[0], only.keys[0])
    choice, table = _Choice(tried, live, preference, now, random), Routes.of(routes)
    choice.calm = calm and not tried
    found = choice.find(table)
    if found is None and live.full:
        choice.full = {}
        found = choice.find(table)
    if found is None and not calm:
        choice.last_resort = True
        found = choice.find(table)
    return found


class _Choice:
    """One choice, and what it depends on."""

    __slots__ = (
        "calm", "circuits", "full", "last_resort", "live", "now", "own", "preference", "random", "seeds", "tried",
    )  # fmt: skip

    def __init__(
        self, tried: Set[Pair], live: Live, preference: RoutePreference, now: float, random: Callable[[], float]
    ) -> None:
        self.tried, self.live, self.preference, self.now, self.random = tried, live, preference, now, random
        self.own: CircuitBreaker | None = live.suspicions.of(preference.user)
        # Of the channel and of the key: vendors keep their prompt caches by account.
        self.seeds = seeds_of(preference.conversation) if preference.conversation else None
        # What is left out of account is empty.
        self.circuits = live.breaker.circuits if not preference.pinned else {}
        self.full = live.full
        self.calm = self.last_resort = False  # `calm`: nothing was tried or is blocked

    def find(self, table: Routes) -> Candidate | None:
        preference = self.preference
        if preference.prefer is not None:
            found = self._preferred(table, *preference.prefer)
            if found is not None:
                return found
        if preference.pinned:
            route = table.serving.through(preference.pinned)
            return _OfKeys(self, route.channel).candidate(route) if route is not None else None
        for tier in table.tiers:
            if len(tier.routes) > 1:
                number = _OfChannels(self, tier).chosen()
                if number is None:
                    continue
                route = tier.routes[number]
                if len(route.channel.keys) == 1:  # which has been found to be open
                    return Candidate(route, route.channel.keys[0])
            else:
                route = tier.routes[0]
            found = _OfKeys(self, route.channel).candidate(route)
            if found is not None:
                return found
        return None

    def _preferred(self, table: Routes, channel: int, key: int) -> Candidate | None:
        route = table.serving.through(channel)
        if route is None or self.preference.pinned not in {0, channel} or self.blocked_until(channel, 0):
            return None
        number = Keys.number_of(route.channel, key)
        if number is None or not (self.calm or _OfKeys(self, route.channel).is_open(number)):
            return None
        return Candidate(route, route.channel.keys[number])

    def blocked_until(self, channel: int, key: int) -> float:
        """Until when a key (0: the whole channel) is blocked for everybody by itself, 0: it is not."""
        full, circuits = self.full, self.circuits
        until = full.get((channel, key), 0.0) if full else 0.0
        if until <= self.now:
            until = 0.0
        for_model, for_all = (channel, key, self.preference.model), (channel, key, 0)
        if circuits and (for_model in circuits or for_all in circuits):
            closed_until, now, last_resort = self.live.breaker.closed_until, self.now, self.last_resort
            until = max(until, closed_until(for_model, now, last_resort), closed_until(for_all, now, last_resort))
        return until

    def excluded(self, channel: int, key: int) -> bool:
        """Whether this request alone may not use a key: it has tried it, or its user's requests failed there."""
        tried, own = self.tried, self.own
        if tried and ((channel, key) in tried or (channel, 0) in tried):
            return True
        if own is None or self.preference.pinned:
            return False
        return own.blocked((channel, key, self.preference.model), self.now, self.last_resort) is not None


class _Items(ABC):
    """Channels or keys of which one is chosen, by their numbers.

    `is_open(item)`: whether the request may use one now. `until(item)`: until when one is blocked for everybody, 0: it
    is not.
    """

    __slots__ = ("choice", "place", "shares")

    def __init__(self, choice: _Choice, shares: Shares, place: int) -> None:
        """`place`: of the ids in the places of circuits."""
        self.choice, self.shares, self.place = choice, shares, place

    @abstractmethod
    def is_open(self, item: int) -> bool: ...

    @abstractmethod
    def until(self, item: int) -> float: ...

    def draw(self) -> int | None:
        """An open item by weight."""
        choice, shares = self.choice, self.shares
        if choice.calm:
            return shares.draw(choice.random())
        if not self._are_few():
            for _ in range(_DRAWS):
                item = shares.draw(choice.random())
                if self.is_open(item):
                    return item
        return self._of_open()

    def turn(self, whose: int) -> int | None:
        """The open item whose turn it is."""
        choice, shares = self.choice, self.shares
        turn = choice.live.turn((whose, shares.name), len(shares), choice.random)
        if choice.calm:
            return shares.next(turn)
        if not self._are_few():
            for _ in range(_TURNS):
                item = shares.next(turn)
                if self.is_open(item):
                    return item
        return self._of_open()

    def of_conversation(self, seed: int) -> int | None:
        """The item of a conversation, or the next one that is open."""
        calm = self.choice.calm
        if not calm and self._are_few() and not self.opened().items:
            return None
        for item in self.shares.walk(seed):
            if calm or self.is_open(item):
                return item
        found = [item for item in self._open_items() if self.is_open(item)]
        return self.shares.nearest(seed, found) if found else None

    def _are_few(self) -> bool:
        """Whether so few items are known to be open that most draws would find none."""
        known = self.choice.live.opened
        opened = known.get(self._key()) if known else None
        return opened is not None and len(opened.items) * 8 <= len(self.shares)

    # -- where nearly all are blocked --------------------------------------------------------------------------------

    def _of_open(self) -> int | None:
        """An open item by weight, of few."""
        shares, random = self.shares, self.choice.random
        if len(shares) > _SCANNED:
            opened = self.opened()
            for _ in range(_DRAWS):
                if not opened.items:
                    return None
                item = opened.draw(random())
                if self.is_open(item):
                    return item
                if until := self.until(item):
                    opened.block(item, until)
        found = [item for item in self._open_items() if self.is_open(item)]
        return shares.draw_of(found, random()) if found else None

    def _open_items(self) -> Sequence[int]:
        return range(len(self.shares)) if len(self.shares) <= _SCANNED else self.opened().items

    def _key(self) -> tuple[int, int, bool, bool]:
        choice = self.choice
        return id(self.shares), choice.preference.model, choice.last_resort, not choice.full

    def opened(self) -> OpenItems:
        """The items that are open for everybody."""
        entries, breaker, key = self.choice.live.opened, self.choice.live.breaker, self._key()
        found = entries.get(key)
        changes = breaker.since(found.position) if found is not None else None
        if found is not None and changes is not None:
            found.follow({place[self.place] for place in changes}, breaker.position, self.until, self.choice.now)
        else:
            found = entries[key] = OpenItems(self.shares, breaker.position, self.until)
            if len(entries) > _OPENED:
                entries.popitem(last=False)
        while found.items and (until := self.until(found.items[-1])):
            found.block(found.items[-1], until)
        return found


class _OfKeys(_Items):
    """The keys of a channel."""

    __slots__ = ("channel", "keys")

    def __init__(self, choice: _Choice, channel: ChannelView) -> None:
        self.channel, self.keys = channel, channel.keys
        super().__init__(choice, _NONE if len(self.keys) == 1 else Keys.of(channel).shares, 1)

    def is_open(self, item: int) -> bool:
        choice, channel, key = self.choice, self.channel.id, self.keys[item].id
        return not (choice.blocked_until(channel, key) or choice.excluded(channel, key))

    def until(self, item: int) -> float:
        return self.choice.blocked_until(self.channel.id, self.keys[item].id)

    def candidate(self, route: Route) -> Candidate | None:
        """The channel with one of its keys, None: none is open."""
        choice, keys = self.choice, self.keys
        if not choice.calm and choice.blocked_until(self.channel.id, 0):
            return None
        if len(keys) == 1:
            return Candidate(route, keys[0]) if choice.calm or self.is_open(0) else None
        if choice.seeds is not None:
            number = self.of_conversation(choice.seeds[1])
        elif self.channel.key_strategy == Strategy.ROUND_ROBIN:
            number = self.turn(-self.channel.id)
        else:
            number = self.draw()
        return Candidate(route, keys[number]) if number is not None else None

    def any_open(self) -> bool:
        """Whether a key is open."""
        keys = self.keys
        if len(keys) > _SCANNED and self._key() in self.choice.live.opened:
            return self._of_open() is not None
        for item in range(min(len(keys), _SCANNED)):
            if self.is_open(item):
                return True
        return len(keys) > _SCANNED and self._of_open() is not None

    def all_until(self) -> float:
        """Until when all keys are blocked for everybody, 0: they are not."""
        if len(self.keys) <= _SCANNED:
            return min([self.until(item) for item in range(len(self.keys))])
        opened = self.opened()
        return 0.0 if opened.items else opened.returns()


class _OfChannels(_Items):
    """The channels of a priority."""

    __slots__ = ("routes", "tier")

    def __init__(self, choice: _Choice, tier: Tier) -> None:
        self.tier, self.routes = tier, tier.routes
        super().__init__(choice, tier.shares, 0)

    def is_open(self, item: int) -> bool:
        choice, channel = self.choice, self.routes[item].channel
        if choice.blocked_until(channel.id, 0):
            return False
        keys = channel.keys
        if len(keys) == 1:
            key = keys[0].id
            return not (choice.blocked_until(channel.id, key) or choice.excluded(channel.id, key))
        return _OfKeys(choice, channel).any_open()

    def until(self, item: int) -> float:
        channel = self.routes[item].channel
        return self.choice.blocked_until(channel.id, 0) or _OfKeys(self.choice, channel).all_until()

    def chosen(self) -> int | None:
        """The number of a channel by the strategy, None: none is open."""
        choice = self.choice
        if choice.seeds is not None:
            return self.of_conversation(choice.seeds[0])
        strategy = self.tier.strategy(choice.preference.strategy, choice.preference.default)
        if strategy is Strategy.ROUND_ROBIN:
            return self.turn(choice.preference.model)
        if strategy is Strategy.LEAST_IN_FLIGHT:
            return self._idlest()
        if strategy is Strategy.LOWEST_LATENCY:
            return self._fastest()
        return self.draw()

    def _few(self) -> list[int] | None:
        """The open ones of few channels, None: they are many."""
        calm, size = self.choice.calm, len(self.routes)
        return [item for item in range(size) if calm or self.is_open(item)] if size <= _FEW else None

    def _load(self, item: int) -> float:
        return self.choice.live.in_flight.get(self.routes[item].channel.id, 0) / self.shares.weight(item)

    def _idlest(self) -> int | None:
        """The channel with the fewest requests for its weight; of many, the better one of two."""
        few = self._few()
        if few is None:
            first, second = self.draw(), self.draw()
            return first if first is None or second is None or self._load(first) <= self._load(second) else second
        if not few:
            return None
        loads = [self._load(item) for item in few]
        least = min(loads)
        idlest = [item for item, load in zip(few, loads, strict=True) if load == least]
        return self.shares.draw_of(idlest, self.choice.random())

    def _seconds(self, item: int) -> float | None:
        return self.choice.live.latency.get((self.routes[item].channel.id, self.choice.preference.model))

    def _fastest(self) -> int | None:
        """The fastest channel, after all were measured; of many, the best of two and of those that were met before."""
        few, random = self._few(), self.choice.random
        if few is None:
            return self._fastest_of_many()
        if not few:
            return None
        unknown = [item for item in few if self._seconds(item) is None]
        if unknown:
            return self.shares.draw_of(unknown, random())
        if random() < _EXPLORE:
            return self.shares.draw_of(few, random())
        return min(few, key=lambda item: self._seconds(item) or 0.0)

    def _fastest_of_many(self) -> int | None:
        choice, size = self.choice, len(self.routes)
        known = choice.live.fastest_of((choice.preference.model, self.shares.name), size, choice.random)
        for _ in range(_LOOKED):
            if known.measured >= size:
                break
            item = (known.first + known.measured) % size
            known.measured += 1
            if self._seconds(item) is None and (choice.calm or self.is_open(item)):
                return item
        if choice.random() < _EXPLORE:
            return self.draw()
        found, least = None, math.inf
        for number in (known.best, self.draw(), self.draw()):
            if number is None or (number == known.best and not (choice.calm or self.is_open(number))):
                continue
            seconds = self._seconds(number)
            if found is None or (seconds is not None and seconds < least):
                found, least = number, seconds if seconds is not None else math.inf
        if found is not None:
            known.best = found
        return found
