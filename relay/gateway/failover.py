"""Tries channels until one answers: picks the next one after a failure, and chooses the error to report."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from django.http.response import HttpResponseBase

from relay.errors import ConversionRefused, InvalidRequest, RelayError, UpstreamRateLimited, WarmChannelUnavailable
from relay.gateway.access.admission import AdmissionEntry
from relay.gateway.attempt import Attempt, TryChannel, interrupt_failure
from relay.gateway.exchange.interrupts import Ended
from relay.gateway.exchange.request import ChannelCheck, GatewayRequest
from relay.gateway.limits.windows import SLOTS, TOKENS, LimitVerdict
from relay.gateway.record import Record
from relay.gateway.routing.continuity import LastTurn
from relay.gateway.routing.conversation_turn import ConversationTurn, cold_at, only, with_key
from relay.gateway.routing.missing_apis import MissingApis
from relay.gateway.routing.selection import RoutePreference, pick
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.routes import Candidate, Routes
from relay.gateway.snapshot.views import ChannelView, ModelView, Pair
from relay.providers.classify import Failure
from relay.providers.failures import FailureClass
from relay.usage.conversations.turns import last_turn

# The failure to report when several channels failed in different ways: the one that says most about when to retry.
_REPORT_ORDER: Final = (
    FailureClass.RATE,
    FailureClass.QUOTA_WINDOW,
    FailureClass.OVERLOAD,
    FailureClass.FULL,
    FailureClass.TOO_LARGE,
    FailureClass.UNANSWERED,
    FailureClass.TRANSIENT,
    FailureClass.TIMEOUT,
    FailureClass.CONFIG,
    FailureClass.LOOP,
    FailureClass.KEY_FORBIDDEN_MODEL,
)
# Endpoints whose requests can be converted, with the API that a channel must have so that they need not be.
_NATIVE: Final = {
    **{api: api for api in ("chat.completions", "responses", "messages", "generate_content", "embeddings")},
    **{api: api for api in ("generate_content.embed", "generate_content.embed_batch")},
    "responses.compact": "responses",
}
# Failures that a client may be told of; with the others, the channel is out of service for all that it needs to know.
_TOLD: Final = frozenset(
    (
        FailureClass.RATE,
        FailureClass.QUOTA_WINDOW,
        FailureClass.OVERLOAD,
        FailureClass.TRANSIENT,
        FailureClass.UNANSWERED,
        FailureClass.TIMEOUT,
        FailureClass.FULL,
    )
)
_MOST_FULL: Final = 256  # limits of channels and keys that one request meets
_KNOWN: Final = 32  # for so many counts one that is known to be used up
_FULL_SECONDS: Final = 1.0  # for which a limit is believed to be used up that may have room at any time
_LONGEST_FULL: Final = 60.0
_SHORT_WAIT: Final = 5.0  # seconds until the next try, where nothing says when the channel comes back
_LONGEST_WARM: Final = 86_400.0  # seconds; no cache is known to keep a prompt longer


def usable_routes(
    routes: Routes, check_channel: ChannelCheck, missing: MissingApis
) -> tuple[Routes, RelayError | None]:
    """The routes whose channels can serve the request, and why the first of the others cannot.

    One channel of each kind is asked, and of each set of APIs that upstreams lack.
    """
    if len(routes) == 1:  # most models of most portals
        error = check_channel(routes[0].channel)
        return (routes, None) if error is None else (Routes(), error)
    version, kinds = missing.kinds(routes, time.time())
    found = [check_channel(routes[numbers[0]].channel) for numbers in kinds.values()]
    unfit = min((error for error in found if error is not None), key=_is_no_conversion, default=None)
    if unfit is None:
        return routes, None
    fit = [kind for kind, error in zip(kinds, found, strict=True) if error is None]
    return routes.table((version, *fit), lambda: sorted(number for kind in fit for number in kinds[kind])), unfit


async def try_routes(
    caller: Caller, run: Runtime, model: ModelView, record: Record, request: GatewayRequest, try_channel: TryChannel
) -> HttpResponseBase:
    """Try one channel after another until `try_channel` returns an answer. Raises RelayError.

    No (channel, key) is tried twice, and none after MAX_ATTEMPTS attempts or RETRY_SECONDS.
    """
    check = request.check_channel
    if model.native_only and request.endpoint in _NATIVE:
        check = partial(_check_native, run, request, model.name)
    routes, unfit = usable_routes(caller.routes(model), check, run.health.missing_apis)
    if unfit is not None and not routes:
        raise unfit
    if request.only_there is not None:
        routes = _only(routes, request.prefer)
        if not routes:
            raise request.only_there
    own = routes.owned  # a user's own channel is asked as if it was named
    record.exchange.over_plan = own != 0
    pinned = record.exchange.pinned or own
    if record.exchange.pinned and routes.through(pinned) is None:
        raise _pin_error(pinned, model.name)
    session = record.exchange.client.session
    talk = session.conversation or request.conversation
    conversation = f"{caller.user_id} {talk}" if talk and model.sticky else ""
    preference = RoutePreference(
        model.id, model.strategy, run.config.routing_strategy, conversation, pinned, request.prefer, caller.user_id
    )
    kept: _Kept | None = None
    if talk:
        of_agent = talk if session.agent is None else f"{talk} {session.agent}"  # each has a prompt of its own
        digest = run.continuity.digest(caller.user_id, model.id, of_agent)
        record.turn = ConversationTurn(run.continuity, digest)
        if model.keeps_cache and not pinned:
            routes, kept = await _kept_routes(run, record.turn, routes)
    answer, failures = await _try_all(run, routes, preference, record, check, try_channel)
    if answer is not None:
        return answer
    error = (
        _failure_to_report(failures).error if failures else run.health.no_channel_error(model.name, routes, preference)
    )
    if not failures or _may_retry_elsewhere(failures[-1], record.candidate.route.channel if record.candidate else None):
        if kept is not None:
            error = _warm_error(run, model.name, kept, preference, failures)
        elif isinstance(unfit, ConversionRefused) or (model.native_only and _lacks_api(failures)):
            error = _native_error(model.name, error)
    del failures
    try:
        raise error
    finally:
        del error  # breaks the reference cycle between the error and its traceback


def _lacks_api(failures: Sequence[Failure]) -> bool:
    return any(failure.kind is FailureClass.NO_API for failure in failures[-1:])


def _is_no_conversion(error: RelayError) -> bool:
    return not isinstance(error, ConversionRefused)


def _check_native(run: Runtime, request: GatewayRequest, model: str, channel: ChannelView) -> RelayError | None:
    """As the request's own check, and that a channel speaks the API of the request."""
    unfit, api = request.check_channel(channel), _NATIVE[request.endpoint]
    if unfit is not None or run.health.serves_api(channel, api):
        return unfit
    if api in channel.urls:  # it has denied this for now
        return ConversionRefused(_NOT_NOW.format(model=model), retry_after=_SHORT_WAIT)
    refused = ConversionRefused(
        f"No channel of the model “{model}” speaks the API of this request, and the model is set to fail rather than "
        "to convert it. Use the API of the model's vendor, or ask the portal's administrator."
    )
    refused.retry = False
    return refused


_NOT_NOW: Final = (
    "No channel of the model “{model}” that speaks the API of this request can answer now, and the model is set to "
    "fail rather than to convert it for others. Try again after the time in Retry-After."
)


def _native_error(model: str, error: RelayError) -> RelayError:
    """The error where channels are left that would have to convert."""
    wait = error.retry_after
    return ConversionRefused(_NOT_NOW.format(model=model), retry_after=_SHORT_WAIT if wait is None else wait)


@dataclass(frozen=True, slots=True)
class _Kept:
    """The channel and key that a conversation may not leave, and until when. Seconds since 1970."""

    pair: Pair
    until: float


async def _kept_routes(run: Runtime, turn: ConversationTurn, routes: Routes) -> tuple[Routes, _Kept | None]:
    """The routes of a conversation that may not leave its warm channel and key, and what these are; None: any.

    Where another worker had the last turn, the usage records say so. Raises RelayUnavailable.
    """
    now, last = time.time(), turn.last
    if len(routes) == 1 and len(routes[0].channel.keys) + len(routes[0].channel.disabled_keys) < 2:
        return routes, None  # there is nothing else to go to
    if last is None or cold_at(last, routes) <= now:
        found = await snapshot_cache.in_thread(last_turn, turn.digest, now - _LONGEST_WARM)
        last = (
            LastTurn((found.channel or 0, found.key or 0), found.at, found.for_an_hour) if found is not None else None
        )
        if last is None or cold_at(last, routes) <= now:
            return routes, None
    own = only(routes, last.pair)
    return (routes, None) if own is None else (Routes(own), _Kept(last.pair, cold_at(last, routes)))


def _warm_error(
    run: Runtime, model: str, kept: _Kept, preference: RoutePreference, failures: Sequence[Failure]
) -> RelayError:
    """The error of a conversation whose warm channel or key cannot answer now."""
    now, waits = time.time(), [failure.error.retry_after for failure in failures[-1:]]
    found = run.health.live.blocked((*kept.pair, preference.model), preference.user, now)
    kind = failures[-1].kind if failures else found.kind if found is not None else None
    if found is not None:
        waits.append(found.until - now)
    wait = max((one for one in waits if one is not None), default=_SHORT_WAIT)
    why = f" ({kind.text})" if kind is not None and kind in _TOLD else ""
    return WarmChannelUnavailable(
        f"The channel that has this conversation in its prompt cache cannot answer now{why}, and the model “{model}” "
        "is set to fail rather than to leave it. Try again after the time in Retry-After, or begin a new "
        "conversation.",
        retry_after=max(1.0, min(wait, kept.until - now)),
    )


async def _try_all(
    run: Runtime,
    routes: Routes,
    preference: RoutePreference,
    record: Record,
    check_channel: ChannelCheck,
    try_channel: TryChannel,
) -> tuple[HttpResponseBase | None, list[Failure]]:
    """The first answer, or None and every failure."""
    config, health, exchange, turn = run.config, run.health, record.exchange, record.turn
    tried: set[Pair] = set()  # (channel, 0): all of its keys
    lacking: dict[int, ChannelView] = {}  # channels without the APIs that they denied to this request
    failures: list[Failure] = []
    full = 0  # limits that were used up
    while len(record.attempts) < config.max_attempts:
        now = time.time()
        if failures and now - exchange.wall > config.retry_seconds:
            break
        candidate = pick(routes, tried, health.live, preference, now, random.random)
        if candidate is None or full > _MOST_FULL:
            break
        if not candidate.key.usable:  # it is passed over until the configuration changes
            tried.add(candidate.pair)
            full += _KNOWN if health.live.was_full(candidate.pair, math.inf, now) else 1
            continue
        if candidate.route.channel.id in lacking:
            route = replace(candidate.route, channel=lacking[candidate.route.channel.id])
            candidate = Candidate(route, candidate.key)
        if turn is not None:
            turn.choose(candidate.pair, routes, health.live, preference, now)
        tried.add(candidate.pair)
        channel = candidate.route.channel
        entry: AdmissionEntry | None = None
        if channel.checks or candidate.key.checks:
            entry = await run.admission.enter(exchange, channel.checks + candidate.key.checks, record.prompt_tokens)
            if entry.verdict.refused is not None:
                whose = (channel.id, 0) if entry.verdict.refused in channel.checks else candidate.pair
                tried.add(whose)
                full += _KNOWN if health.live.was_full(whose, _believed_seconds(entry.verdict), now) else 1
                failures.append(_limit_failure(entry.verdict))
                if turn is not None:
                    turn.failed(candidate.pair, failures[-1])
                continue
        attempt = Attempt(run, record, candidate, preference.model, now)
        try:
            return await try_channel(attempt), failures
        except Ended as ended:
            failures.append(interrupt_failure(ended))
        except Failure as failure:
            failures.append(failure.with_traceback(None))
        attempt.failed(failures[-1])
        if turn is not None:
            turn.failed(candidate.pair, failures[-1])
        if entry is not None:
            entry.cancel()
        if exchange.left or not _may_retry_elsewhere(failures[-1], channel):
            break
        if failures[-1].kind is FailureClass.NO_API:
            without = _without_api(channel, failures[-1].api)
            if check_channel(without) is None:
                tried.discard(candidate.pair)  # another API of the channel can serve, and has not been tried
                lacking[channel.id] = without
            else:
                tried.add((channel.id, 0))
    return None, failures


def _only(routes: Routes, pair: Pair | None) -> Routes:
    """The route by a channel and a key, as the only one; empty where these serve no more."""
    route = routes.through(pair[0]) if pair is not None else None
    found = with_key(route, pair[1]) if route is not None and pair is not None else None
    return Routes((found,)) if found is not None else Routes()


def _without_api(channel: ChannelView, api: str) -> ChannelView:
    """The channel as one request sees it to which its upstream said that it lacks an API."""
    return replace(channel, urls={name: url for name, url in channel.urls.items() if name != api})


def _pin_error(pinned: int, model: str) -> RelayError:
    message = (
        f"The channel {pinned} that your token names does not serve the model “{model}”, is disabled or is not "
        "for your groups. Name another, or none."
    )
    return InvalidRequest(message, code="channel_not_found")


def _may_retry_elsewhere(failure: Failure, channel: ChannelView | None) -> bool:
    """Whether another key or channel is tried. `channel`: that failed; None: it was asked nothing.

    A request that may have been billed is retried only if the channel allows.
    """
    if channel is None:
        return failure.kind.retry
    if failure.kind is FailureClass.UNANSWERED:
        return channel.retry_unanswered != "never"
    if failure.kind is FailureClass.TIMEOUT:
        return channel.retry_unanswered == "always"
    return failure.kind.retry


def _believed_seconds(verdict: LimitVerdict) -> float:
    """For how long other channels and keys are tried before one that has reached its own limit."""
    kind = verdict.refused.kind if verdict.refused is not None else ""
    if kind == TOKENS:  # there may be room for a smaller request
        return min(verdict.retry_after, _FULL_SECONDS)
    return _FULL_SECONDS if kind == SLOTS else min(verdict.retry_after, _LONGEST_FULL)


def _limit_failure(verdict: LimitVerdict) -> Failure:
    """The failure of a channel or key that has reached its own limit."""
    kind = verdict.refused.kind if verdict.refused is not None else ""
    message = (
        "Every channel for this model is at a limit that the portal has set for it. Try again after the time in "
        "Retry-After."
    )
    return Failure(
        FailureClass.FULL, UpstreamRateLimited(message, retry_after=verdict.retry_after), 0, f"at its limit of {kind}"
    )


def _failure_to_report(failures: list[Failure]) -> Failure:
    if not failures[-1].kind.retry and failures[-1].kind is not FailureClass.TIMEOUT:
        return failures[-1]
    for kind in _REPORT_ORDER:
        found = [failure for failure in failures if failure.kind is kind]
        if found:
            return min(
                found, key=lambda failure: failure.error.retry_after if failure.error.retry_after is not None else 0.0
            )
    return failures[-1]
