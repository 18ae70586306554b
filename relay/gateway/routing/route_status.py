"""The status of each channel and key that could serve a model. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from relay.gateway.routing.circuit_breaker import OpenCircuit
from relay.gateway.routing.live import Live
from relay.gateway.routing.selection import RoutePreference, pick
from relay.gateway.snapshot.routes import Candidate
from relay.gateway.snapshot.views import KeyView, Route

_LOOKED_AT: Final = 200  # channels, and keys of one, that an error for a client is made from


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
) -> Iterator[RouteExplanation]:
    """The status of every channel and key that could serve, by priority and name, one at a time for thousands."""
    chosen = pick(routes, frozenset(), live.looked_at(), preference, now, lambda: 0.0)
    for route in sorted(routes, key=lambda route: (-route.channel.priority, route.channel.name)):
        yield from _explain(route, chosen, live, preference, now)


def cooling_circuits(
    routes: Sequence[Route], live: Live, preference: RoutePreference, now: float
) -> tuple[list[OpenCircuit], bool]:
    """The circuits for which channels and keys are left alone, and whether these are all: of thousands it is some,
    evenly spread.
    """
    found: list[OpenCircuit] = []
    step, looked, whole = max(1, len(routes) // _LOOKED_AT), 0, len(routes) <= _LOOKED_AT
    for route in routes[::step]:
        channel = route.channel
        if channel.refusal or preference.pinned:
            continue
        part = channel.keys[:: max(1, len(channel.keys) // _LOOKED_AT)]
        whole = whole and len(part) == len(channel.keys)
        for key in part:
            circuit = live.blocked((channel.id, key.id, preference.model), preference.user, now)
            if circuit is not None:
                found.append(circuit)
        looked += len(part)
        if looked >= 2 * _LOOKED_AT:
            return found, False
    return found, whole


def _explain(
    route: Route, chosen: Candidate | None, live: Live, preference: RoutePreference, now: float
) -> Iterator[RouteExplanation]:
    channel = route.channel
    if channel.refusal or (preference.pinned and channel.id != preference.pinned):
        yield RouteExplanation(route, None, RouteStatus.REFUSED if channel.refusal else RouteStatus.OTHER)
    elif not channel.keys:
        yield RouteExplanation(route, None, RouteStatus.NO_KEY)
    for key in channel.keys if not channel.refusal and preference.pinned in {0, channel.id} else ():
        at = (channel.id, key.id, preference.model)
        cooling = None if preference.pinned else live.blocked(at, preference.user, now)
        if chosen is not None and chosen.pair == (channel.id, key.id):
            status = RouteStatus.NEXT  # even while it cools down, as a last resort
        elif cooling is not None:
            status = RouteStatus.COOLING
        elif chosen is not None and channel.priority == chosen.route.channel.priority:
            status = RouteStatus.READY
        else:
            status = RouteStatus.STANDBY
        yield RouteExplanation(route, key, status, cooling)
