"""Which channel and key to try next. Pure: routes and what was tried go in, a choice comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

from relay.gateway.snapshot import KeyView, Route

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Candidate:
    route: Route
    key: KeyView

    @property
    def pair(self) -> tuple[int, int]:
        return (self.route.channel.id, self.key.id)


def pick(routes: Sequence[Route], tried: Set[tuple[int, int]], random: Callable[[], float]) -> Candidate | None:
    """The next (channel, key): highest priority first; inside a priority a channel by weight, inside a channel a key by weight.

    `tried` pairs are left out, so siblings of a failed channel come before a lower priority. `random` returns numbers in [0, 1).
    """
    open_routes = [route for route in routes if not route.channel.refusal and _open_keys(route, tried)]
    if not open_routes:
        return None
    if len(open_routes) > 1:
        top = max(route.channel.priority for route in open_routes)
        open_routes = [route for route in open_routes if route.channel.priority == top]
    route = _weighted(open_routes, [route.channel.weight for route in open_routes], random)
    keys = _open_keys(route, tried)
    return Candidate(route, _weighted(keys, [key.weight for key in keys], random))


def _open_keys(route: Route, tried: Set[tuple[int, int]]) -> Sequence[KeyView]:
    keys = route.channel.keys
    return [key for key in keys if (route.channel.id, key.id) not in tried] if tried else keys


def _weighted(items: Sequence[T], weights: Sequence[int], random: Callable[[], float]) -> T:
    if len(items) == 1:
        return items[0]
    point = random() * sum(weights)
    for item, weight in zip(items, weights, strict=True):
        point -= weight
        if point < 0:
            return item
    return items[-1]
