"""Tries channels until one answers: picks the next one after a failure, and chooses the error to report."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from django.http.response import HttpResponseBase

from relay.errors import InvalidRequest, RelayError, UpstreamRateLimited
from relay.gateway.access.admission import AdmissionEntry
from relay.gateway.attempt import Attempt, TryChannel, interrupt_failure
from relay.gateway.exchange.interrupts import Ended
from relay.gateway.exchange.request import ChannelCheck, GatewayRequest
from relay.gateway.limits.windows import LimitVerdict
from relay.gateway.record import Record
from relay.gateway.routing.selection import RoutePreference, pick
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ChannelView, ModelView, Pair, Route
from relay.providers.classify import Failure
from relay.providers.failures import FailureClass

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


def usable_routes(routes: Sequence[Route], check_channel: ChannelCheck) -> tuple[Sequence[Route], RelayError | None]:
    """The routes whose channels can serve the request, and why the first of the others cannot."""
    if len(routes) == 1:  # most models of most portals
        only = check_channel(routes[0].channel)
        return (routes, None) if only is None else ((), only)
    found = [check_channel(route.channel) for route in routes]
    unfit = next((error for error in found if error is not None), None)
    if unfit is None:
        return routes, None
    return [route for route, error in zip(routes, found, strict=True) if error is None], unfit


async def try_routes(
    caller: Caller, run: Runtime, model: ModelView, record: Record, request: GatewayRequest, try_channel: TryChannel
) -> HttpResponseBase:
    """Try one channel after another until `try_channel` returns an answer. Raises RelayError.

    No (channel, key) is tried twice, and none after MAX_ATTEMPTS attempts or RETRY_SECONDS.
    """
    routes, unfit = usable_routes(caller.routes(model), request.check_channel)
    if unfit is not None and not routes:
        raise unfit
    if request.only_there is not None:
        routes = _only(routes, request.prefer)
        if not routes:
            raise request.only_there
    pinned = record.exchange.pinned
    if pinned:
        _check_pin(pinned, [one.channel for one in routes], model.name)
    conversation = record.exchange.client.session.conversation or request.conversation
    conversation = f"{caller.user_id} {conversation}" if conversation and model.sticky else ""
    preference = RoutePreference(
        model.id, model.strategy, run.config.routing_strategy, conversation, pinned, request.prefer, caller.user_id
    )
    answer, failures = await _try_all(run, routes, preference, record, request.check_channel, try_channel)
    if answer is not None:
        return answer
    error = (
        _failure_to_report(failures).error if failures else run.health.no_channel_error(model.name, routes, preference)
    )
    del failures
    try:
        raise error
    finally:
        del error  # breaks the reference cycle between the error and its traceback


async def _try_all(
    run: Runtime,
    routes: Sequence[Route],
    preference: RoutePreference,
    record: Record,
    check_channel: ChannelCheck,
    try_channel: TryChannel,
) -> tuple[HttpResponseBase | None, list[Failure]]:
    """The first answer, or None and every failure."""
    config, health, exchange = run.config, run.health, record.exchange
    tried: set[Pair] = set()
    failures: list[Failure] = []
    while len(record.attempts) < config.max_attempts:
        now = time.time()
        if failures and now - exchange.wall > config.retry_seconds:
            break
        candidate = pick(routes, tried, health.live, preference, now, random.random)
        if candidate is None:
            break
        tried.add(candidate.pair)
        channel = candidate.route.channel
        entry: AdmissionEntry | None = None
        if channel.checks or candidate.key.checks:
            slot = f"{exchange.request_id}:{channel.id}:{candidate.key.id}"
            entry = await run.admission.enter(
                exchange, channel.checks + candidate.key.checks, record.prompt_tokens, slot
            )
            if entry.verdict.refused is not None:
                if entry.verdict.refused in channel.checks:
                    tried.update((channel.id, key.id) for key in channel.keys)
                failures.append(_limit_failure(entry.verdict))
                continue
        attempt = Attempt(run, record, candidate, preference.model, now)
        try:
            return await try_channel(attempt), failures
        except Ended as ended:
            failures.append(interrupt_failure(ended))
        except Failure as failure:
            failures.append(failure.with_traceback(None))
        attempt.failed(failures[-1])
        if entry is not None:
            entry.cancel()
        if exchange.left or not _may_retry_elsewhere(failures[-1], channel):
            break
        if failures[-1].kind is FailureClass.NO_API:
            without = _without_api(channel, failures[-1].api)
            if check_channel(without) is None:
                tried.discard(candidate.pair)  # another API of the channel can serve, and has not been tried
                routes = [replace(one, channel=without) if one.channel is channel else one for one in routes]
            else:
                routes = [route for route in routes if route.channel is not channel]
    return None, failures


def _only(routes: Sequence[Route], pair: Pair | None) -> Sequence[Route]:
    """The route by a channel and a key, as the only one; empty where these serve no more."""
    for route in routes:
        channel = route.channel
        keys = tuple(key for key in channel.keys if (channel.id, key.id) == pair)
        if keys:
            return (replace(route, channel=replace(channel, keys=keys)),)
    return ()


def _without_api(channel: ChannelView, api: str) -> ChannelView:
    """The channel as one request sees it to which its upstream said that it lacks an API."""
    return replace(channel, urls={name: url for name, url in channel.urls.items() if name != api})


def _check_pin(pinned: int, channels: Sequence[ChannelView], model: str) -> None:
    if not any(channel.id == pinned for channel in channels):
        message = (
            f"The channel {pinned} that your token names does not serve the model “{model}”, is disabled or is not "
            "for your groups. Name another, or none."
        )
        raise InvalidRequest(message, code="channel_not_found")


def _may_retry_elsewhere(failure: Failure, channel: ChannelView) -> bool:
    """Whether another key or channel is tried.

    A request that may have been billed is retried only if the channel allows.
    """
    if failure.kind is FailureClass.UNANSWERED:
        return channel.retry_unanswered != "never"
    if failure.kind is FailureClass.TIMEOUT:
        return channel.retry_unanswered == "always"
    return failure.kind.retry


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
