"""What the requests of single users suggest about upstreams. It steers the requests of the same user only. Pure.

A user whose requests fail may have an upstream that is down, or a request that no upstream can serve. Each has circuit
breakers of their own, which are kept in memory, for the users whose requests failed last, and forgotten after minutes.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from relay.gateway.routing.circuit_breaker import CircuitBreaker, CircuitPlace
from relay.providers.classify import Failure

MAX_USERS: Final = 2_000
MAX_PLACES: Final = 100  # for each user
_LOOKED_AT: Final = 100  # users at once, so that no request waits for it


class Suspicions:
    """The circuit breakers of single users. Used on the event loop only."""

    def __init__(self) -> None:
        self._breakers: OrderedDict[int, CircuitBreaker] = OrderedDict()  # by user, the latest failure last
        self._to_look_at: list[int] = []  # users

    def __bool__(self) -> bool:
        return bool(self._breakers)

    def of(self, user: int) -> CircuitBreaker | None:
        """The breaker of a user, None while nothing is suspected."""
        return self._breakers.get(user)

    def failed(self, at: CircuitPlace, user: int, failure: Failure, began: float, now: float) -> None:
        """Count a failure of a user's request. Times are seconds since 1970."""
        breaker = self._breakers.get(user)
        if breaker is None:
            breaker = self._breakers[user] = CircuitBreaker(own=True)
            if len(self._breakers) > MAX_USERS:
                self._breakers.popitem(last=False)
        else:
            self._breakers.move_to_end(user)
        breaker.failed(at, user, failure, began, now)
        breaker.changed.clear()
        if len(breaker.circuits) > MAX_PLACES:
            del breaker.circuits[min(breaker.circuits, key=lambda place: breaker.circuits[place].touched)]
        self._tidy(user, breaker)

    def succeeded(self, at: CircuitPlace, user: int, began: float) -> None:
        """An answer to a user's request began."""
        breaker = self._breakers.get(user)
        if breaker is not None:
            breaker.succeeded(at, began)
            self._tidy(user, breaker)

    def drop(self, place: CircuitPlace) -> None:
        """A person or a test has closed the circuit of a place: no user's suspicion outlives that."""
        for user, breaker in list(self._breakers.items()):
            breaker.drop(place)
            self._tidy(user, breaker)

    def forget(self, now: float) -> None:
        """Drop what has not been confirmed for minutes, of some users after others in turn."""
        if not self._to_look_at:
            self._to_look_at = list(self._breakers)
        for user in self._to_look_at[-_LOOKED_AT:]:
            breaker = self._breakers.get(user)
            if breaker is not None:
                breaker.forget(now)
                self._tidy(user, breaker)
        del self._to_look_at[-_LOOKED_AT:]

    def _tidy(self, user: int, breaker: CircuitBreaker) -> None:
        breaker.changed.clear()
        if not breaker.circuits:
            del self._breakers[user]
