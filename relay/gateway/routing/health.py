"""The health of upstreams as one worker sees it: opens circuits, disables keys, and informs the other workers."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from django.utils.translation import gettext as _

from portal.lib import clock
from relay.channels import cooldowns
from relay.channels.cooldowns import CooldownPlace, MissingApi, StoredCircuit
from relay.channels.keys import Evidence, notify_staff, order_test, take_out
from relay.errors import CredentialsExhausted, NoAvailableChannel, RelayError, UpstreamRateLimited
from relay.gateway.routing.circuit_breaker import Circuit, OpenCircuit, is_proof
from relay.gateway.routing.live import Live
from relay.gateway.routing.missing_apis import MissingApis
from relay.gateway.routing.route_status import cooling_circuits
from relay.gateway.routing.selection import RoutePreference
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.routes import Candidate
from relay.gateway.snapshot.views import ChannelView, Route
from relay.models.notice import NoticeKind
from relay.providers.classify import KEYS_MESSAGE, MONEY_MESSAGE, Failure, public_error
from relay.providers.failures import FailureClass
from relay.providers.retry_after import SHORTEST

logger: Final = logging.getLogger(__name__)
_KEY_KINDS: Final = {FailureClass.KEY_DEAD, FailureClass.BILLING}
STRIKE_SECONDS: Final = 30.0  # after which another refusal of the same user's requests counts
_STRIKES_LAST: Final = 600.0  # seconds for which the first refusal counts
_LONGEST_OF_SOME: Final = 60.0  # seconds; of thousands of channels another one may be back earlier
_LOOK_SECONDS: Final = 10.0  # between looks for what can be forgotten
_TEST_PAUSE: Final = 300.0  # seconds between two tests of a key that are ordered by suspicion


@dataclass(frozen=True, slots=True)
class Requester:
    """Whose request an attempt serves."""

    user: int  # id
    request_id: str = ""


@dataclass(slots=True)
class _Strike:
    """The first refusal of a key that proves nothing by itself. Times are seconds since 1970."""

    user: int
    at: float


class Health:
    """The health of upstreams. Belongs to one event loop.

    `live` is the state that routing reads. All database work waits for `flush`, which runs beside the requests.
    """

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self.live = Live()
        self.missing_apis = MissingApis()
        self._strikes: dict[int, _Strike] = {}  # by key
        self._tests_ordered: dict[int, float] = {}  # by key, seconds since 1970
        self._keys_to_test: set[int] = set()
        self._keys_to_disable: dict[int, tuple[Failure, Requester]] = {}
        self._look_at = 0.0  # for what can be forgotten, seconds since 1970
        self._channel_faults: dict[int, tuple[str, str]] = {}  # channel to its name and the detail

    # -- attempts ----------------------------------------------------------------------------------------------------

    def failed(self, candidate: Candidate, model: int, failure: Failure, began: float, by: Requester) -> None:
        """An attempt failed. `began`: seconds since 1970."""
        channel, key = candidate.pair
        kind = failure.kind
        if kind is FailureClass.NO_API:
            self.missing_apis.suspected(candidate.route.channel, candidate.key, by.user, failure)
            if failure.status == 401 and key:
                self._order_test(key, time.time())
            return
        if failure.about_part:
            return
        now = time.time()
        opened = self.live.failed((channel, key, model), by.user, failure, began, now)
        if kind in _KEY_KINDS and key:
            if self._condemns(key, failure, began, by, now):
                self._strikes.pop(key, None)
                self._keys_to_disable[key] = failure, by
        elif kind is FailureClass.CONFIG and opened:
            self._channel_faults[channel] = (candidate.route.channel.name, failure.detail)

    def _condemns(self, key: int, failure: Failure, began: float, by: Requester, now: float) -> bool:
        """Whether a refusal takes a key out of service.

        A code that the vendor reserves for it does. So does a second 401 without one, of another user's request or of
        one some time later: nothing but the key is signed in with. Any other refusal may be the doing of the request,
        whatever its text says, and one without an error object that of whatever stands before the upstream; it orders
        a test of ours, and that takes the key out if it fails.
        """
        if is_proof(failure):
            return True
        first = self._strikes.get(key)
        if first is None or now - first.at > _STRIKES_LAST:
            self._strikes[key] = _Strike(by.user, now)
        elif (
            failure.status == 401
            and failure.said is not None
            and not failure.implied
            and began > first.at + (STRIKE_SECONDS if by.user == first.user else 0.0)
        ):
            return True
        self._order_test(key, now)
        return False

    def _order_test(self, key: int, now: float) -> None:
        if now - self._tests_ordered.get(key, 0.0) > _TEST_PAUSE:
            self._tests_ordered[key] = now
            self._keys_to_test.add(key)

    def serves_api(self, channel: ChannelView, api: str) -> bool:
        """Whether a channel serves an API: by its vendor and settings, unless its upstream is known to lack it."""
        return self.missing_apis.serves(channel, api, time.time())

    def answered(self, candidate: Candidate, model: int, began: float, seconds: float, user: int) -> None:
        """An answer began. `began`: seconds since 1970; `seconds`: until the first byte."""
        channel, key = candidate.pair
        self.live.succeeded((channel, key, model), user, began)
        self.live.measured(channel, model, seconds)
        if self._strikes:
            self._strikes.pop(key, None)

    # -- other workers -----------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Write all changes to the database. Raises RelayUnavailable; failed writes are repeated next time."""
        breaker = self.live.breaker
        now = time.time()
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            breaker.forget(now)
            self._forget(now)
        self.live.suspicions.forget(now)
        self.missing_apis.forget(now)
        if breaker.changed:
            changes = [(place, _open(breaker.circuits.get(place))) for place in breaker.changed]
            breaker.changed = set()
            try:
                await snapshot_cache.in_thread(cooldowns.save_circuits, changes, self.worker)
            except BaseException:
                breaker.changed |= {place for place, _state in changes}
                raise
        if self.missing_apis.changed:
            await self._save_missing_apis()
        while self._keys_to_disable:
            key, (failure, by) = next(iter(self._keys_to_disable.items()))
            kind = failure.kind.word
            evidence = Evidence(failure.status, failure.code, by.user, by.request_id)
            if await snapshot_cache.in_thread(take_out, key, kind, failure.detail, evidence):
                logger.warning("the upstream key %d was taken out of service: %s", key, kind, extra={"api_key": key})
            self._keys_to_disable.pop(key, None)
        while self._keys_to_test:
            key = next(iter(self._keys_to_test))
            await snapshot_cache.in_thread(order_test, key)
            self._keys_to_test.discard(key)
        while self._channel_faults:
            channel, (name, detail) = next(iter(self._channel_faults.items()))
            await snapshot_cache.in_thread(_notify_channel_fault, channel, name, detail)
            self._channel_faults.pop(channel, None)

    def _forget(self, now: float) -> None:
        """Drop what no longer counts of keys that may be gone."""
        self._strikes = {key: strike for key, strike in self._strikes.items() if now - strike.at <= _STRIKES_LAST}
        self._tests_ordered = {key: at for key, at in self._tests_ordered.items() if now - at <= _TEST_PAUSE}
        self.live.full = {pair: until for pair, until in self.live.full.items() if until > now}

    async def _save_missing_apis(self) -> None:
        apis = self.missing_apis
        changes: list[tuple[tuple[int, str], MissingApi | None]] = []
        for place in apis.changed:
            lesson = apis.get(place)
            found = MissingApi(lesson.at, lesson.until, f"{lesson.detail} ({lesson.proof})") if lesson else None
            changes.append((place, found))
        apis.changed = set()
        try:
            await snapshot_cache.in_thread(cooldowns.save_missing_apis, changes, self.worker)
        except BaseException:
            apis.changed |= {place for place, _lesson in changes}
            raise

    def take_over_api(self, name: str, lesson: MissingApi | None) -> None:
        """Another worker has proof that an upstream lacks an API, or a person has ended that."""
        place = cooldowns.api_place_of(name)
        if lesson is None:
            if place not in self.missing_apis.changed:
                self.missing_apis.drop(place)
        elif lesson.worker != self.worker:
            self.missing_apis.take_over(place, lesson.until, lesson.detail)

    def take_over(self, name: str, state: StoredCircuit | None) -> None:
        """Another worker, or a person, opened or closed a circuit."""
        try:
            place: CooldownPlace = cooldowns.place_of(name)
        except ValueError:
            return
        breaker = self.live.breaker
        if state is None:
            self.live.suspicions.drop(place)
            if place not in breaker.changed:
                breaker.drop(place)
        elif state.worker != self.worker:
            breaker.take_over(place, state.since, state.until, state.kind, state.detail, state.opened, state.guessed)

    # -- errors ------------------------------------------------------------------------------------------------------

    def no_channel_error(self, name: str, routes: Sequence[Route], preference: RoutePreference) -> RelayError:
        """The client's error when no channel can be tried."""
        now = time.time()
        cooling, whole = cooling_circuits(routes, self.live, preference, now)
        if cooling:
            return _cooling_error(name, cooling, now, math.inf if whole else _LONGEST_OF_SOME)
        out = {key.kind for route in routes for key in route.channel.disabled_keys}
        if out:
            return CredentialsExhausted(MONEY_MESSAGE if out == {FailureClass.BILLING.word} else KEYS_MESSAGE)
        nothing = NoAvailableChannel(
            f"No channel can serve the model “{name}” at the moment. Tell the portal's administrator; a retry will "
            "not help until a channel is enabled."
        )
        nothing.retry = False
        return nothing


def _cooling_error(name: str, cooling: Sequence[OpenCircuit], now: float, longest: float) -> RelayError:
    # Only a time that an upstream named is passed on: our guesses would make clients sleep for nothing.
    first = min(cooling, key=lambda one: one.until)
    wait = min(max(SHORTEST, first.until - now), longest) if first.named else None
    again = "Try again in a moment." if wait is None else "Try again after the time in Retry-After."
    kinds = {one.kind for one in cooling}
    if kinds <= {FailureClass.RATE, FailureClass.QUOTA_WINDOW}:
        limited = UpstreamRateLimited(f"Every upstream for this model is at its rate limit. {again}", retry_after=wait)
        if FailureClass.RATE not in kinds:
            limited.retry = False
        return limited
    if kinds <= _KEY_KINDS:
        return public_error(FailureClass.KEY_DEAD if len(kinds) > 1 else kinds.pop(), 401, None, None)
    if kinds == {FailureClass.KEY_FORBIDDEN_MODEL}:
        return public_error(FailureClass.KEY_FORBIDDEN_MODEL, 404, None, None)
    return NoAvailableChannel(
        f"Every channel for the model “{name}” is failing and left alone for a moment. {again}", retry_after=wait
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
