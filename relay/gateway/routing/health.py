"""The health of upstreams as one worker sees it: opens circuits, disables keys, and informs the other workers."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

from django.utils.translation import gettext as _

from portal.lib import clock
from relay.channels import cooldowns
from relay.channels.cooldowns import CooldownPlace, StoredCircuit
from relay.channels.keys import notify_staff, take_out
from relay.errors import CredentialsExhausted, NoAvailableChannel, RelayError, UpstreamRateLimited
from relay.gateway.routing.circuit_breaker import Circuit, OpenCircuit
from relay.gateway.routing.selection import Candidate, Live, RoutePreference, RouteStatus, explain_routes
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.views import ChannelView, Route
from relay.models.notice import NoticeKind
from relay.providers.classify import KEYS_MESSAGE, Failure, public_error
from relay.providers.failures import FailureClass

logger: Final = logging.getLogger(__name__)
_MISSING_API_SECONDS: Final = 3600.0  # for which an upstream's word that it lacks an API is believed
_KEY_KINDS: Final = {FailureClass.KEY_DEAD, FailureClass.BILLING}


class Health:
    """The health of upstreams. Belongs to one event loop.

    `live` is the state that routing reads. All database work waits for `flush`, which runs beside the requests.
    """

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.live = Live()
        self._missing_apis: dict[tuple[int, str], tuple[str, float]] = {}  # (channel, API) to its URL and an expiry
        self._first_refusals: dict[int, float] = {}  # key to the time of its first refusal
        self._keys_to_disable: dict[int, tuple[str, str, float | None]] = {}  # key to failure class, detail and wait
        self._channel_faults: dict[int, tuple[str, str]] = {}  # channel to its name and the detail

    # -- attempts ----------------------------------------------------------------------------------------------------

    def failed(self, candidate: Candidate, model: int, failure: Failure, began: float) -> None:
        """An attempt failed. `began`: seconds since 1970.

        A key that is invalid or has no credit is disabled: at once if the failure is certain, at the second failure in
        a row if only the status suggests it.
        """
        channel, key = candidate.pair
        kind = failure.kind
        if kind is FailureClass.NO_API:
            self._missing_apis[channel, failure.api] = (
                str(candidate.route.channel.urls[failure.api]),
                time.monotonic() + _MISSING_API_SECONDS,
            )
            return
        opened = self.live.breaker.failed(channel, key, model, failure, began, time.time())
        if kind in _KEY_KINDS and key:
            first = self._first_refusals.get(key)
            if failure.certain or (first is not None and began > first):  # not in flight at the first refusal
                self._first_refusals.pop(key, None)
                self._keys_to_disable[key] = (kind.word, failure.detail, failure.wait)
            elif first is None:
                self._first_refusals[key] = time.time()
        elif kind is FailureClass.CONFIG and opened:
            self._channel_faults[channel] = (candidate.route.channel.name, failure.detail)

    def serves_api(self, channel: ChannelView, api: str) -> bool:
        """Whether a channel serves an API: by its vendor and settings, unless the upstream has denied it recently."""
        url = channel.urls.get(api)
        if url is None or not self._missing_apis:
            return url is not None
        where, until = self._missing_apis.get((channel.id, api), ("", 0.0))
        return where != str(url) or time.monotonic() >= until

    def answered(self, candidate: Candidate, model: int, began: float, seconds: float) -> None:
        """An answer began. `began`: seconds since 1970; `seconds`: until the first byte."""
        channel, key = candidate.pair
        self.live.breaker.succeeded(channel, key, model, began)
        self.live.measured(channel, model, seconds)
        if self._first_refusals:
            self._first_refusals.pop(key, None)

    # -- other workers -----------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Write all changes to the database. Raises RelayUnavailable; failed writes are repeated next time."""
        breaker = self.live.breaker
        breaker.forget(time.time())
        if breaker.changed:
            changes = [(place, _open(breaker.circuits.get(place))) for place in breaker.changed]
            breaker.changed = set()
            try:
                await snapshot_cache.in_thread(cooldowns.save_circuits, changes, self.worker)
            except BaseException:
                breaker.changed |= {place for place, _state in changes}
                raise
        while self._keys_to_disable:
            key, (kind, reason, wait) = next(iter(self._keys_to_disable.items()))
            if await snapshot_cache.in_thread(take_out, key, kind, reason, wait):
                logger.warning("an upstream key was taken out of service: %s", kind, extra={"api_key": key})
            self._keys_to_disable.pop(key, None)
        while self._channel_faults:
            channel, (name, detail) = next(iter(self._channel_faults.items()))
            await snapshot_cache.in_thread(_notify_channel_fault, channel, name, detail)
            self._channel_faults.pop(channel, None)

    def take_over(self, name: str, state: StoredCircuit | None) -> None:
        """Another worker, or a person, opened or closed a circuit."""
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

    # -- errors ------------------------------------------------------------------------------------------------------

    def no_channel_error(self, name: str, routes: Sequence[Route], preference: RoutePreference) -> RelayError:
        """The client's error when no channel can be tried."""
        now = time.time()
        lines = explain_routes(routes, self.live, preference, now)
        cooling = [line.cooling for line in lines if line.status is RouteStatus.COOLING and line.cooling is not None]
        if cooling:
            return _cooling_error(name, cooling, now)
        if any(route.channel.disabled_keys for route in routes):
            return CredentialsExhausted(KEYS_MESSAGE)
        nothing = NoAvailableChannel(
            f"No channel can serve the model “{name}” at the moment. Tell the portal's administrator; a retry will "
            "not help until a channel is enabled."
        )
        nothing.retry = False
        return nothing


def _cooling_error(name: str, cooling: Sequence[OpenCircuit], now: float) -> RelayError:
    wait = max(0.2, min(one.until for one in cooling) - now)
    kinds = {one.kind for one in cooling}
    if kinds <= {FailureClass.RATE, FailureClass.QUOTA_WINDOW}:
        limited = UpstreamRateLimited(
            "Every upstream for this model is at its rate limit. Try again after the time in Retry-After.",
            retry_after=wait,
        )
        if FailureClass.RATE not in kinds:
            limited.retry = False
        return limited
    if kinds <= _KEY_KINDS:
        return CredentialsExhausted(KEYS_MESSAGE)
    if kinds == {FailureClass.KEY_FORBIDDEN_MODEL}:
        return public_error(FailureClass.KEY_FORBIDDEN_MODEL, 404, None, None)
    return NoAvailableChannel(
        f"Every channel for the model “{name}” is failing and left alone for a moment. Try again after the time in "
        "Retry-After.",
        retry_after=wait,
    )


def _open(circuit: Circuit | None) -> StoredCircuit | None:
    return (
        StoredCircuit(circuit.since, circuit.until, circuit.kind, circuit.detail, circuit.opened, circuit.partial)
        if circuit is not None and circuit.until
        else None
    )


def _notify_channel_fault(channel: int, name: str, detail: str) -> None:
    notify_staff(
        NoticeKind.CHANNEL,
        f"channel:{channel}:{clock.now().date()}",
        lambda: (
            _("The channel “%(channel)s” needs attention") % {"channel": name},
            _(
                "The channel “%(channel)s” does not answer as an API at its address (%(detail)s). Check its base URL, "
                "provider and proxy, then test it. "
                "Requests go to other channels meanwhile."
            )
            % {"channel": name, "detail": detail},
        ),
        {"channel": name, "detail": detail},
    )
