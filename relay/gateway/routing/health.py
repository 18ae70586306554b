"""What a worker makes of failures: circuits, keys to take out of service, and telling the other workers. Belongs to one event loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

from django.utils.translation import gettext as _

from portal.lib import clock
from relay.channels import cooldowns
from relay.channels.cooldowns import CooldownPlace, Open
from relay.channels.keys import take_out, tell_staff
from relay.errors import CredentialsExhausted, NoAvailableChannel, RelayError, UpstreamRateLimited
from relay.gateway.routing.circuit_breaker import Circuit, OpenCircuit
from relay.gateway.routing.selection import Candidate, Live, RoutePreference, RouteStatus, explain
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.views import ChannelView, Route
from relay.models.notice import NoticeKind
from relay.providers.classify import KEYS_MESSAGE, Failure, public_error
from relay.providers.failures import FailureClass

logger: Final = logging.getLogger(__name__)
_BELIEVED: Final = 3600.0  # seconds
_KEY_KINDS: Final = {FailureClass.KEY_DEAD, FailureClass.BILLING}


class Health:
    """`live` is what picking looks at. Everything that concerns the database waits for `flush`, which runs beside the requests."""

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.live = Live()
        self._lacking: dict[tuple[int, str], tuple[str, float]] = {}  # (channel, API) to its address and until when that is believed
        self._strikes: dict[int, float] = {}  # key to the moment of its first refusal
        self._dead: dict[int, tuple[str, str, float | None]] = {}
        self._faults: dict[int, tuple[str, str]] = {}

    # -- attempts ----------------------------------------------------------------------------------------------------

    def failed(self, candidate: Candidate, model: int, failure: Failure, began: float) -> None:
        """One try failed. `began`: seconds since 1970.

        A key is taken out of service when it is certain that it is dead or has no money; when only the status says so, at the second time in a row.
        """
        channel, key = candidate.pair
        kind = failure.kind
        if kind is FailureClass.NO_API:
            self._lacking[channel, failure.api] = (str(candidate.route.channel.urls[failure.api]), time.monotonic() + _BELIEVED)
            return
        opened = self.live.breaker.failed(channel, key, model, failure, began, time.time())
        if kind in _KEY_KINDS and key:
            first = self._strikes.get(key)
            if failure.certain or (first is not None and began > first):  # not one of those that were under way at the first
                self._strikes.pop(key, None)
                self._dead[key] = (kind.word, failure.detail, failure.wait)
            elif first is None:
                self._strikes[key] = time.time()
        elif kind is FailureClass.CONFIG and opened:
            self._faults[channel] = (candidate.route.channel.name, failure.detail)

    def speaks(self, channel: ChannelView, api: str) -> bool:
        """Whether a channel has an API: by its vendor's row and its settings, unless the upstream has said lately that it has not."""
        url = channel.urls.get(api)
        if url is None or not self._lacking:
            return url is not None
        where, until = self._lacking.get((channel.id, api), ("", 0.0))
        return where != str(url) or time.monotonic() >= until

    def answered(self, candidate: Candidate, model: int, began: float, seconds: float) -> None:
        """An answer began after so many seconds."""
        channel, key = candidate.pair
        self.live.breaker.succeeded(channel, key, model, began)
        self.live.measured(channel, model, seconds)
        if self._strikes:
            self._strikes.pop(key, None)

    # -- others ------------------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Write what has changed. Raises RelayUnavailable; what could not be written is kept for the next time."""
        breaker = self.live.breaker
        breaker.forget(time.time())
        if breaker.changed:
            changes = [(place, _open(breaker.circuits.get(place))) for place in breaker.changed]
            breaker.changed = set()
            try:
                await snapshot_cache.in_thread(cooldowns.save, changes, self.worker)
            except BaseException:
                breaker.changed |= {place for place, _state in changes}
                raise
        while self._dead:
            key, (kind, reason, wait) = next(iter(self._dead.items()))
            if await snapshot_cache.in_thread(take_out, key, kind, reason, wait):
                logger.warning("an upstream key was taken out of service: %s", kind, extra={"api_key": key})
            self._dead.pop(key, None)
        while self._faults:
            channel, (name, detail) = next(iter(self._faults.items()))
            await snapshot_cache.in_thread(_tell_of_fault, channel, name, detail)
            self._faults.pop(channel, None)

    def take_over(self, name: str, state: Open | None) -> None:
        """Another worker, or a person, has opened or closed a circuit."""
        try:
            place: CooldownPlace = cooldowns.place_of(name)
        except ValueError:
            return
        breaker = self.live.breaker
        if state is None:
            if place not in breaker.changed:
                breaker.drop(place)
        elif state.worker != self.worker:
            breaker.take_over(place, state.since, state.until, state.kind, state.detail, state.opened, state.guessed)

    # -- words -------------------------------------------------------------------------------------------------------

    def nothing_serves(self, name: str, routes: Sequence[Route], preference: RoutePreference) -> RelayError:
        """What the client is told when no channel can even be tried."""
        now = time.time()
        lines = explain(routes, self.live, preference, now)
        cooling = [line.cooling for line in lines if line.standing is RouteStatus.COOLING and line.cooling is not None]
        if cooling:
            return _while_cooling(name, cooling, now)
        if any(route.channel.disabled_keys for route in routes):
            return CredentialsExhausted(KEYS_MESSAGE)
        nothing = NoAvailableChannel(f"No channel can serve the model “{name}” at the moment. Tell the portal's administrator; a retry will not help until a channel is enabled.")
        nothing.retry = False
        return nothing


def _while_cooling(name: str, cooling: Sequence[OpenCircuit], now: float) -> RelayError:
    wait = max(0.2, min(one.until for one in cooling) - now)
    kinds = {one.kind for one in cooling}
    if kinds <= {FailureClass.RATE, FailureClass.QUOTA_WINDOW}:
        limited = UpstreamRateLimited("Every upstream for this model is at its rate limit. Try again after the time in Retry-After.", retry_after=wait)
        if FailureClass.RATE not in kinds:
            limited.retry = False
        return limited
    if kinds <= _KEY_KINDS:
        return CredentialsExhausted(KEYS_MESSAGE)
    if kinds == {FailureClass.KEY_FORBIDDEN_MODEL}:
        return public_error(FailureClass.KEY_FORBIDDEN_MODEL, 404, None, None)
    return NoAvailableChannel(f"Every channel for the model “{name}” is failing and left alone for a moment. Try again after the time in Retry-After.", retry_after=wait)


def _open(circuit: Circuit | None) -> Open | None:
    return Open(circuit.since, circuit.until, circuit.kind, circuit.detail, circuit.opened, circuit.partial) if circuit is not None and circuit.until else None


def _tell_of_fault(channel: int, name: str, detail: str) -> None:
    tell_staff(
        NoticeKind.CHANNEL,
        f"channel:{channel}:{clock.now().date()}",
        lambda: (
            _("The channel “%(channel)s” needs attention") % {"channel": name},
            _(
                "The channel “%(channel)s” does not answer as an API at its address (%(detail)s). Check its base URL, provider and proxy, then test it. "
                "Requests go to other channels meanwhile."
            )
            % {"channel": name, "detail": detail},
        ),
        {"channel": name, "detail": detail},
    )
