"""Selects the channel and key to try next, from routes, earlier attempts and the live state. Pure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar

from portal.lib.strategy import Strategy
from relay.gateway.routing.circuit_breaker import Circuit, CircuitBreaker, CircuitPlace, OpenCircuit, is_proof
from relay.gateway.routing.suspicions import Suspicions
from relay.gateway.snapshot.views import KeyView, Pair, Route
from relay.providers.classify import Failure

T = TypeVar("T")
_EXPLORE: Final = 0.05  # share of requests that go to slower channels, to measure them again
_NEW: Final = 0.2  # weight of a new measurement in the running average


class Candidate:
    """A channel and one of its keys, for one attempt. `pair`: their ids."""

    __slots__ = ("key", "pair", "route")

    def __init__(self, route: Route, key: KeyView) -> None:
        self.route, self.key = route, key
        self.pair: Pair = (route.channel.id, key.id)


@dataclass(slots=True)
class Live:
    """The live state of one worker that routing reads."""

    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)  # for everybody
    suspicions: Suspicions = field(default_factory=Suspicions)  # for single users
    in_flight: dict[int, int] = field(default_factory=dict)  # requests by channel
    latency: dict[tuple[int, int], float] = field(default_factory=dict)  # seconds to the first byte by (channel, model)
    turns: dict[tuple[str, int], dict[int, float]] = field(default_factory=dict)  # credits of the weighted round robin

    def begin(self, channel: int) -> None:
        self.in_flight[channel] = self.in_flight.get(channel, 0) + 1

    def end(self, channel: int) -> None:
        left = self.in_flight.get(channel, 0) - 1
        if left > 0:
            self.in_flight[channel] = left
        else:
            self.in_flight.pop(channel, None)

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
    A pinned channel is tried even while it cools down; so is one that fails only now and then, when nothing else is
    left. `random` returns numbers in [0, 1).
    """
    calm = not live.breaker.circuits and live.suspicions.of(preference.user) is None
    if len(routes) == 1 and not tried and calm and not preference.pinned:
        only = routes[0].channel  # most models of most portals
        if len(only.keys) == 1 and not only.refusal:
            return Candidate(routes[0], only.keys[0])
    open_routes = _open_routes(routes, tried, live, preference, now)
    if not open_routes and not calm:
        open_routes = _open_routes(routes, tried, live, preference, now, last_resort=True)
    if not open_routes:
        return None
    if preference.prefer is not None:
        for route, keys in open_routes:
            for key in keys:
                if (route.channel.id, key.id) == preference.prefer:
                    return Candidate(route, key)
    if len(open_routes) > 1:
        top = max(route.channel.priority for route, _ in open_routes)
        open_routes = [found for found in open_routes if found[0].channel.priority == top]
    route, keys = open_routes[0] if len(open_routes) == 1 else _choose(open_routes, live, preference, random)
    return Candidate(route, keys[0] if len(keys) == 1 else _key(route, keys, live, preference, random))


def _open_routes(
    routes: Sequence[Route],
    tried: Set[Pair],
    live: Live,
    preference: RoutePreference,
    now: float,
    last_resort: bool = False,
) -> list[tuple[Route, Sequence[KeyView]]]:
    found: list[tuple[Route, Sequence[KeyView]]] = []
    for route in routes:
        if route.channel.refusal or (preference.pinned and route.channel.id != preference.pinned):
            continue
        keys = _open_keys(route, tried, live, preference, now, last_resort)
        if keys:
            found.append((route, keys))
    return found


def _open_keys(
    route: Route, tried: Set[Pair], live: Live, preference: RoutePreference, now: float, last_resort: bool
) -> Sequence[KeyView]:
    channel = route.channel
    keys: Sequence[KeyView] = channel.keys
    if tried:
        keys = [key for key in keys if (channel.id, key.id) not in tried]
    if (live.breaker.circuits or live.suspicions) and not preference.pinned:
        model, user = preference.model, preference.user
        keys = [key for key in keys if live.blocked((channel.id, key.id, model), user, now, last_resort) is None]
    return keys


def strategy_of(routes: Sequence[Route], preference: RoutePreference) -> Strategy:
    """The strategy of the model; else of the pool that all these channels belong to; else the installation's."""
    if preference.strategy:
        return Strategy(preference.strategy)
    pool = routes[0].channel.pool
    if pool is not None and all(route.channel.pool == pool for route in routes):
        return Strategy(pool.strategy)
    return Strategy(preference.default)


def _choose(
    options: Sequence[tuple[Route, Sequence[KeyView]]],
    live: Live,
    preference: RoutePreference,
    random: Callable[[], float],
) -> tuple[Route, Sequence[KeyView]]:
    weights = [route.channel.weight for route, _ in options]
    if preference.conversation:
        return options[_rendezvous(preference.conversation, [route.channel.id for route, _ in options], weights)]
    strategy = strategy_of([route for route, _ in options], preference)
    if strategy is Strategy.ROUND_ROBIN:
        ids = [route.channel.id for route, _ in options]
        return options[_turn(live.turns.setdefault(("model", preference.model), {}), ids, weights)]
    if strategy is Strategy.LEAST_IN_FLIGHT:
        load = [
            live.in_flight.get(route.channel.id, 0) / weight
            for (route, _), weight in zip(options, weights, strict=True)
        ]
        return _weighted_of([index for index, value in enumerate(load) if value == min(load)], options, weights, random)
    if strategy is Strategy.LOWEST_LATENCY:
        seconds = [live.latency.get((route.channel.id, preference.model)) for route, _ in options]
        unknown = [index for index, value in enumerate(seconds) if value is None]
        if unknown:
            return _weighted_of(unknown, options, weights, random)
        if random() >= _EXPLORE:
            known = [value for value in seconds if value is not None]
            return options[known.index(min(known))]
    return _weighted(options, weights, random)


def _weighted_of(
    indices: Sequence[int], options: Sequence[T], weights: Sequence[int], random: Callable[[], float]
) -> T:
    return _weighted([options[index] for index in indices], [weights[index] for index in indices], random)


def _key(
    route: Route, keys: Sequence[KeyView], live: Live, preference: RoutePreference, random: Callable[[], float]
) -> KeyView:
    weights = [key.weight for key in keys]
    if preference.conversation:  # vendors keep their prompt caches by account
        return keys[_rendezvous(preference.conversation, [key.id for key in keys], weights)]
    if route.channel.key_strategy == Strategy.ROUND_ROBIN:
        return keys[_turn(live.turns.setdefault(("channel", route.channel.id), {}), [key.id for key in keys], weights)]
    return _weighted(keys, weights, random)


def _weighted(items: Sequence[T], weights: Sequence[int], random: Callable[[], float]) -> T:
    if len(items) == 1:
        return items[0]
    point = random() * sum(weights)
    for item, weight in zip(items, weights, strict=True):
        point -= weight
        if point < 0:
            return item
    return items[-1]


def _turn(credit: dict[int, float], ids: Sequence[int], weights: Sequence[int]) -> int:
    """Smooth weighted round robin: each turn adds every weight to its credit; the highest is chosen and pays
    the sum.
    """
    best = 0
    for index, (id_, weight) in enumerate(zip(ids, weights, strict=True)):
        credit[id_] = credit.get(id_, 0.0) + weight
        if credit[id_] > credit[ids[best]]:
            best = index
    credit[ids[best]] -= sum(weights)
    return best


def _rendezvous(conversation: str, ids: Sequence[int], weights: Sequence[int]) -> int:
    """Rendezvous hashing: the same choice for a conversation on every worker, without shared state.

    When that choice is not available, only its own conversations move.
    """
    best, highest = 0, -math.inf
    for index, (id_, weight) in enumerate(zip(ids, weights, strict=True)):
        number = int.from_bytes(hashlib.blake2b(f"{conversation}\0{id_}".encode(), digest_size=8).digest(), "big")
        score = -weight / math.log((number + 1) / (2**64 + 1))
        if score > highest:
            best, highest = index, score
    return best


def home(routes: Sequence[Route], preference: RoutePreference) -> Pair | None:
    """The channel and key that a conversation has as long as nothing fails; None: it keeps to none.

    The same as `pick` with everything in service.
    """
    options = [
        route
        for route in routes
        if route.channel.keys and not route.channel.refusal and preference.pinned in {0, route.channel.id}
    ]
    if not options or not preference.conversation:
        return None
    top = max(route.channel.priority for route in options)
    options = [route for route in options if route.channel.priority == top]
    ids, weights = [route.channel.id for route in options], [route.channel.weight for route in options]
    channel = options[_rendezvous(preference.conversation, ids, weights) if len(options) > 1 else 0].channel
    keys = channel.keys
    if len(keys) == 1:
        return channel.id, keys[0].id
    chosen = _rendezvous(preference.conversation, [key.id for key in keys], [key.weight for key in keys])
    return channel.id, keys[chosen].id


class RouteStatus(StrEnum):
    """The status of a (channel, key) for a model."""

    NEXT = "next"
    READY = "ready"
    STANDBY = "standby"  # used when all of a higher priority fail
    COOLING = "cooling"
    REFUSED = "refused"  # its address is not permitted
    NO_KEY = "no_key"
    OTHER = "other"  # the token pins another channel


@dataclass(frozen=True, slots=True)
class RouteExplanation:
    """The status of one route, for explanations."""

    route: Route
    key: KeyView | None  # None: the channel as a whole
    status: RouteStatus
    cooling: OpenCircuit | None = None


def explain_routes(
    routes: Sequence[Route], live: Live, preference: RoutePreference, now: float
) -> list[RouteExplanation]:
    """The status of every channel and key that could serve, by priority and name."""
    found: list[RouteExplanation] = []
    chosen = pick(routes, frozenset(), _still(live), preference, now, lambda: 0.0)
    for route in sorted(routes, key=lambda route: (-route.channel.priority, route.channel.name)):
        channel = route.channel
        if channel.refusal or (preference.pinned and channel.id != preference.pinned):
            found.append(RouteExplanation(route, None, RouteStatus.REFUSED if channel.refusal else RouteStatus.OTHER))
        elif not channel.keys:
            found.append(RouteExplanation(route, None, RouteStatus.NO_KEY))
        else:
            for key in channel.keys:
                at = (channel.id, key.id, preference.model)
                cooling = None if preference.pinned else live.blocked(at, preference.user, now)
                if chosen is not None and chosen.pair == (channel.id, key.id):
                    status = RouteStatus.NEXT  # even while it cools down, as a last resort
                elif cooling is not None:
                    status = RouteStatus.COOLING
                else:
                    status = (
                        RouteStatus.READY
                        if chosen is not None and channel.priority == chosen.route.channel.priority
                        else RouteStatus.STANDBY
                    )
                found.append(RouteExplanation(route, key, status, cooling))
    return found


def _still(live: Live) -> Live:
    """A copy, so that an explanation does not use up turns of the round robin."""
    turns = {place: dict(credit) for place, credit in live.turns.items()}
    return Live(live.breaker, live.suspicions, live.in_flight, live.latency, turns)
