"""Routes and keys, prepared for choosing one of thousands. Pure.

They are sequences as any other, with tables beside them that are made once for each configuration: by priority, by
channel, by groups of callers, and by what channels have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import count
from typing import Final, Self

from portal.lib.strategy import Strategy
from relay.gateway.snapshot.shares import Shares
from relay.gateway.snapshot.views import ChannelView, KeyView, Pair, PoolView, Route

_MOST_KINDS: Final = 10_000  # that are remembered; the same again would be told apart from before
_MOST_TABLES: Final = 64  # of one model, for callers of different groups and for different requests
# What tells channels apart that can serve the same requests. Of addresses only the names of their APIs count.
_OF_ITS_OWN: Final = frozenset(
    (
        "id", "name", "urls", "stream_urls", "keys", "priority", "weight", "groups", "proxy", "timeouts", "refusal",
        "cost_multiplier", "disconnect_policy", "checks", "pool", "key_strategy", "retry_unanswered", "disabled_keys",
        "cache_seconds", "cost_member",
    )
)  # fmt: skip
_SHARED: Final = tuple(one.name for one in fields(ChannelView) if one.name not in _OF_ITS_OWN and one.init)


class Keys(tuple[KeyView, ...]):
    """The keys of a channel that are in service. `shares` are their weights; keys out of service keep their cells."""

    shares: Shares

    @classmethod
    def of(cls, channel: ChannelView) -> Keys:
        """The keys of a channel, which are prepared unless somebody has put others in their place."""
        keys = channel.keys
        if type(keys) is Keys:
            return keys
        return cls.made(keys, [(key.id, key.weight) for key in channel.disabled_keys])

    @classmethod
    def number_of(cls, channel: ChannelView, key: int) -> int | None:
        """The number of a key of a channel, None: it is not in service."""
        if len(channel.keys) < 2:
            return 0 if channel.keys and channel.keys[0].id == key else None
        return cls.of(channel).shares.number_of(key)

    @classmethod
    def made(cls, keys: Iterable[KeyView], reserved: Sequence[tuple[int, int]] = ()) -> Self:
        found = cls(keys)
        found.shares = Shares([key.id for key in found], [key.weight for key in found], reserved)
        return found


class Candidate:
    """A channel and one of its keys, for one attempt. `pair`: their ids."""

    __slots__ = ("key", "pair", "route")

    def __init__(self, route: Route, key: KeyView) -> None:
        self.route, self.key = route, key
        self.pair: Pair = (route.channel.id, key.id)


class Tier:
    """The routes of one priority that have a key and may be used."""

    __slots__ = ("pool", "routes", "shares")

    def __init__(self, routes: Sequence[Route]) -> None:
        self.routes = routes
        channels = [route.channel for route in routes]
        self.shares = Shares([channel.id for channel in channels], [channel.weight for channel in channels])
        pool = channels[0].pool
        self.pool: PoolView | None = pool if all(channel.pool == pool for channel in channels) else None

    def strategy(self, own: str, default: str) -> Strategy:
        """The strategy of the model, `own`; else of the pool that all of these channels belong to; else the default."""
        return Strategy(own or (self.pool.strategy if self.pool is not None else default))


class Routes(tuple[Route, ...]):
    """Routes by which one model is served. Immutable, but for tables that are made when they are first needed."""

    _tiers: tuple[Tier, ...] | None = None
    _places: dict[int, int] | None = None
    _tables: dict[Hashable, Routes] | None = None
    _kinds: dict[Hashable, list[int]] | None = None
    _examples: Sequence[Route] | None = None
    _tariffs: Sequence[Route] | None = None
    _serving: Routes | None = None
    _regrouped: tuple[int, dict[Hashable, list[int]]] | None = None
    _groups: frozenset[int] | None = None
    _limited = False
    _owned: int | None = None

    @classmethod
    def of(cls, routes: Sequence[Route]) -> Routes:
        return routes if type(routes) is Routes else cls(routes)

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The routes that can be chosen, the highest priority first."""
        if self._tiers is None:
            found: dict[int, list[Route]] = {}
            for route in self:
                if route.channel.keys and not route.channel.refusal:
                    found.setdefault(route.channel.priority, []).append(route)
            self._tiers = tuple(Tier(found[priority]) for priority in sorted(found, reverse=True))
        return self._tiers

    @property
    def kinds(self) -> dict[Hashable, list[int]]:
        """The numbers of the routes whose channels can serve the same requests."""
        if self._kinds is None:
            self._kinds = {}
            for number, route in enumerate(self):
                self._kinds.setdefault(kind_of(route.channel), []).append(number)
        return self._kinds

    def regrouped(self, version: int, lacks: Callable[[], Mapping[int, Hashable]]) -> dict[Hashable, list[int]]:
        """The same kinds, divided by what `lacks` says of single channels; it is asked once for each version of it."""
        if self._regrouped is None or self._regrouped[0] != version:
            known = ((self.number_of(channel), missing) for channel, missing in lacks().items())
            apart = {number: missing for number, missing in known if number is not None}
            found: dict[Hashable, list[int]] = {}
            for kind, numbers in self.kinds.items():
                for number in numbers:
                    found.setdefault((kind, apart[number]) if number in apart else kind, []).append(number)
            self._regrouped = version, found
        return self._regrouped[1]

    @property
    def examples(self) -> Sequence[Route]:
        """A route of each kind and name at the upstream: what holds for these holds for all."""
        if self._examples is None:
            found: dict[Hashable, Route] = {}
            for route in self:
                found.setdefault((kind_of(route.channel), route.upstream_name), route)
            self._examples = tuple(found.values())
        return self._examples

    @property
    def tariffs(self) -> Sequence[Route]:
        """A route of each price list: of those without one of their own, one."""
        if self._tariffs is None:
            self._tariffs = tuple({id(route.price): route for route in reversed(self)}.values())
        return self._tariffs

    @property
    def serving(self) -> Routes:
        """The routes that have a key, and whose address may be used."""
        if self._serving is None:
            found = [route for route in self if route.channel.keys and not route.channel.refusal]
            self._serving = self if len(found) == len(self) else Routes(found)
        return self._serving

    @property
    def owned(self) -> int:
        """The id of a channel that serves its owner only, 0: there is none."""
        if self._owned is None:
            self._owned = next((route.channel.id for route in self if route.channel.owner is not None), 0)
        return self._owned

    def number_of(self, channel: int) -> int | None:
        """The number of the route through a channel, None: there is none."""
        if self._places is None:
            self._places = {route.channel.id: number for number, route in enumerate(self)}
        return self._places.get(channel)

    def through(self, channel: int) -> Route | None:
        """The route through a channel, None: there is none."""
        number = self.number_of(channel)
        return self[number] if number is not None else None

    def prepare(self, turns: bool = False) -> None:
        """Make the tables now, in the thread that reads the configuration."""
        _ = self.kinds, self.owned, self._reserved_for
        for tier in self.tiers:
            tier.shares.prepare(turns)
            for route in tier.routes:
                keys = route.channel.keys
                if type(keys) is Keys and len(keys) > 1:
                    keys.shares.prepare(route.channel.key_strategy == "round_robin")

    def table(self, key: Hashable, numbers: Callable[[], Iterable[int]]) -> Routes:
        """The routes with these numbers, made once for each key."""
        tables = self._tables
        if tables is None:
            tables = self._tables = {}
        found = tables.get(key)
        if found is None:
            if len(tables) >= _MOST_TABLES:
                tables.clear()
            found = tables[key] = Routes([self[number] for number in numbers()])
        return found

    @property
    def _reserved_for(self) -> frozenset[int] | None:
        """The groups that channels are reserved for; None: every channel is open to all."""
        if self._groups is None:
            limited = [route.channel.groups for route in self if route.channel.groups is not None]
            self._limited = bool(limited)
            self._groups = frozenset().union(*limited)
        return self._groups if self._limited else None

    def open_to(self, user: int, groups: frozenset[int]) -> Routes:
        """The routes through channels that are open to all, to one of these groups, or the user's own."""
        reserved, owned = self._reserved_for, self.owned
        if reserved is None and not owned:  # nearly always
            return self
        mine = groups & reserved if reserved else frozenset()
        return self.table(
            (user if owned else 0, mine),
            lambda: (
                number
                for number, route in enumerate(self)
                if (route.channel.groups is None or not mine.isdisjoint(route.channel.groups))
                and route.channel.owner in (None, user)
            ),
        )


NO_ROUTES: Final = Routes()


def kind_of(channel: ChannelView) -> Hashable:
    """What a channel has in common with others that can serve the same requests. Worked out once for each view."""
    if channel.known_kind:
        return channel.known_kind[0]
    found: list[Hashable] = [frozenset(channel.urls), frozenset(channel.stream_urls)]
    for name in _SHARED:
        value = getattr(channel, name)
        try:
            hash(value)
        except TypeError:
            value = (repr(value) if name != "policies" else _number_of(value)) if value else None
        found.append(value)
    if len(_kinds) > _MOST_KINDS:
        _kinds.clear()
    kind = _kinds.setdefault(tuple(found), next(_numbers))
    channel.known_kind.append(kind)
    return kind


def _number_of(value: object) -> int:
    """A number of an object that channels share. It is kept, so that no other object gets its place."""
    if len(_shared) > _MOST_KINDS:
        _shared.clear()
    return _shared.setdefault(id(value), (value, next(_numbers)))[1]


_shared: Final[dict[int, tuple[object, int]]] = {}
_kinds: Final[dict[Hashable, int]] = {}
_numbers: Final = count()
