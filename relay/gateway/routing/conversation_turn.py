"""One turn of a conversation: where its prompt is probably cached, and why it is answered elsewhere. Pure.

Only what a worker has in memory is looked at, so that it costs microseconds. What becomes of it in the end, with the
turns that other workers served, is in the usage records (`relay.usage.conversations`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from relay.gateway.routing.continuity import Continuity, LastTurn
from relay.gateway.routing.live import Live
from relay.gateway.routing.selection import RoutePreference, pick
from relay.gateway.snapshot.routes import Keys, Routes
from relay.gateway.snapshot.views import Pair, Route
from relay.protocols.usage import Usage
from relay.providers.classify import Failure
from relay.providers.vendor import HOUR_SECONDS


class ConversationTurn:
    """A request of a conversation. Times are seconds since 1970."""

    __slots__ = ("_continuity", "_failed", "digest", "elsewhere", "last")

    def __init__(self, continuity: Continuity, digest: int) -> None:
        self._continuity, self.digest = continuity, digest
        self.last = continuity.last_turn(digest)
        self._failed: dict[Pair, str] = {}  # words of the failures of this request
        # The pair that is expected to have its prompt cached, and why another one is asked; None: it is asked itself.
        self.elsewhere: tuple[Pair, str, bool] | None = None  # the last: it was left alone before this request

    def failed(self, pair: Pair, failure: Failure) -> None:
        """An attempt at a channel and key failed."""
        self._failed[pair] = failure.kind.word

    def choose(
        self, chosen: Pair, routes: Sequence[Route], live: Live, preference: RoutePreference, now: float
    ) -> None:
        """A channel and key were chosen for an attempt."""
        self.elsewhere = None
        last = self.last
        if last is not None:
            expected: Pair | None = last.pair
        elif self._failed or live.breaker.circuits or live.suspicions:
            expected = home(routes, preference)
        else:
            return
        if expected is None or expected == chosen:
            return
        word = self._failed.get(expected)
        if word is not None:
            self.elsewhere = expected, word, False
        elif _has(routes, expected):
            found = live.blocked((*expected, preference.model), preference.user, now)
            if found is not None:
                self.elsewhere = expected, found.kind.word, True

    def answered(self, pair: Pair, usage: Usage, at: float) -> None:
        """It was answered by a channel and key."""
        if usage.input:
            before = self.last
            hour = usage.cache_write_1h > 0 or (
                before is not None and before.pair == pair and before.for_an_hour and usage.cached_input > 0
            )
            self._continuity.remember_turn(self.digest, LastTurn(pair, at, hour))


def home(routes: Sequence[Route], preference: RoutePreference) -> Pair | None:
    """The channel and key that a conversation has as long as nothing fails; None: it keeps to none."""
    if not preference.conversation:
        return None
    found = pick(routes, frozenset(), Live(), replace(preference, prefer=None), 0.0, lambda: 0.0)
    return found.pair if found is not None else None


def cold_at(last: LastTurn, routes: Sequence[Route]) -> float:
    """Until when the prompt of a conversation is probably cached where its last turn was answered.

    0: none of the routes leads there.
    """
    route = Routes.of(routes).through(last.pair[0])
    if route is None:
        return 0.0
    return last.at + (HOUR_SECONDS if last.for_an_hour else route.channel.cache_seconds)


def only(routes: Sequence[Route], pair: Pair) -> list[Route] | None:
    """The route with this channel and key alone; empty: the key is out of service for now.

    None: the channel does not serve the model any more, or has lost the key, so that nothing will bring it back.
    """
    route = Routes.of(routes).through(pair[0])
    if route is None:
        return None
    found = with_key(route, pair[1])
    if found is not None and not route.channel.refusal:
        return [found]
    return [] if any(key.id == pair[1] for key in route.channel.disabled_keys) else None


def with_key(route: Route, key: int) -> Route | None:
    """A route with one of its keys alone, None: it does not have it."""
    channel = route.channel
    number = Keys.number_of(channel, key) if channel.keys else None
    if number is None or len(channel.keys) == 1:
        return None if number is None else route
    return replace(route, channel=replace(channel, keys=(channel.keys[number],)))


def _has(routes: Sequence[Route], pair: Pair) -> bool:
    route = Routes.of(routes).through(pair[0])
    return route is not None and bool(route.channel.keys) and Keys.number_of(route.channel, pair[1]) is not None
