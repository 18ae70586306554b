"""The steps that all requests to upstreams share: admission, reservation, routing, and the usage record."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from django.http.response import HttpResponseBase

from relay.billing.ledger.writer import writer
from relay.errors import InternalError, LoopDetected, RelayError
from relay.gateway.access.authorization import check_named, check_purpose, permitted_model
from relay.gateway.attempt import Attempt, TryChannel, interrupt_error
from relay.gateway.background import BackgroundRequest
from relay.gateway.charging.charge import RequestCharge
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.interrupts import Interrupt
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.failover import try_routes
from relay.gateway.limits.windows import SLOTS
from relay.gateway.outcome import CLIENT_GONE, INTERNAL, SHUTDOWN, Outcome, end_reason
from relay.gateway.record import Record
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot import hops
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ModelView
from relay.protocols.fields import named_model

logger: Final = logging.getLogger(__name__)
_VIA: Final = hops.HEADER.encode()


async def serve(
    exchange: Exchange, caller: Caller, run: Runtime, request: GatewayRequest, try_channel: TryChannel
) -> HttpResponseBase:
    """Admit, reserve, route and record a request. `try_channel` sends it to one channel and reads the answer.

    Raises RelayError if no part of an answer has been sent; the record is on disk by then.
    """
    check_end(exchange)
    check_loop(exchange)
    exchange.client.enter(caller, request.session)
    snapshot = snapshot_cache.snapshot
    model = check_access(exchange, caller, request.endpoint, request.model)
    if model.overridden:
        request = request.covering(model.name, caller.routes(model).examples)
    if request.named:
        check_named(caller, snapshot, request.named, exchange.wall)
    writer.admit()
    run.own_limits.tell(exchange, caller)
    run.catalogue_tags.tell(exchange, caller)
    terms = snapshot.terms(caller)
    charge = RequestCharge(
        run.reservations, caller, model, exchange.multiplier(terms.multiplier), run.fallback_price, exchange.wall
    )
    limits = terms.checks + model.checks if model.checks else terms.checks
    if limits:
        await run.admission.admit(
            exchange, limits, request.prompt_tokens + (request.output_limit or 0) * request.choices
        )
        exchange.tokens_used = 0  # until the record says otherwise
    await charge.reserve(exchange, request)
    check_end(exchange)  # it may have been ended while it waited for its reservation
    record = Record(exchange, run.reservations, request, model.name, charge)
    exchange.progress = record.progress
    if request.stream and request.error_event is not None and exchange.early_head is not None:
        exchange.error_event = request.error_event
        exchange.early_at = exchange.started + run.config.stream_head_seconds
    try:
        if request.put_in is not None:
            await request.put_in(exchange)
        return await try_routes(caller, run, model, record, request, try_channel)
    except RelayError as error:
        failed: RelayError = error
        reason = end_reason(error)
    except asyncio.CancelledError:
        gone = (exchange.left or exchange.interrupted is Interrupt.CLIENT_GONE) and not run.is_cutting_off()
        stopped = Outcome(SHUTDOWN, 503, error=interrupt_error(Interrupt.STOPPING))
        record.submit(Outcome(CLIENT_GONE, 499) if gone else stopped, wait=False)
        raise
    except Exception:
        logger.exception("a request failed", extra={"request_id": exchange.request_id})
        failed, reason = InternalError(), INTERNAL
    told = any(name == b"x-relay-attempts" for name, _ in exchange.reply_headers)
    if record.attempts and not told and run.shows_relay_headers(exchange):
        exchange.reply_headers.append((b"x-relay-attempts", b"%d" % len(record.attempts)))
    status = failed.http_status if exchange.early_start is None else 200  # as the client was told
    await exchange.committed(record.submit(Outcome(reason, status, error=failed)))
    try:
        raise failed
    finally:
        del failed  # as in `try_routes`


def check_access(exchange: Exchange, caller: Caller, endpoint: str, name: str) -> ModelView:
    """The model of a request that the caller may make. Raises Forbidden, ModelNotFound.

    For work that comes before `serve`, which asks this first as well: nothing is done for those who may not.
    """
    exchange.model_asked = name
    check_purpose(caller, endpoint.partition(".")[0])
    return permitted_model(caller, snapshot_cache.snapshot, name, exchange.wall)


async def check_large(
    exchange: Exchange, caller: Caller, run: Runtime, endpoint: str, body: bytes, model: str = ""
) -> None:
    """Ask for permission, limits and money before a large body is parsed; `serve` asks again.

    `model`: where the body names none. Raises RelayError.
    """
    named = named_model(body)
    name = exchange.model_in_path or named or model
    if named is None or not name:
        return  # it is said when it is parsed
    found = check_access(exchange, caller, endpoint, name)
    writer.admit()
    terms = snapshot_cache.snapshot.terms(caller)
    run.admission.check(terms.checks + found.checks)
    charge = RequestCharge(
        run.reservations, caller, found, exchange.multiplier(terms.multiplier), run.fallback_price, exchange.wall
    )
    await charge.check_money(exchange)


async def count_request(exchange: Exchange, caller: Caller, run: Runtime, at_once: bool = True) -> None:
    """Count a request that is not served by an upstream against the caller's limits of requests.

    `at_once`: also against those of requests at once. Raises RateLimited, ConcurrencyLimited, RelayUnavailable.
    """
    checks = snapshot_cache.snapshot.terms(caller).checks
    if not at_once:
        checks = tuple(check for check in checks if check.kind != SLOTS)
    if checks:
        await run.admission.admit(exchange, checks, 0)
        exchange.tokens_used = 0


def check_loop(exchange: Exchange) -> None:
    """Raise LoopDetected for a request that has passed through this portal already, or through too many relays."""
    via = exchange.headers.get(_VIA)
    if via is not None and (why := hops.refusal(via)):
        raise LoopDetected(why)


def check_end(exchange: Exchange) -> None:
    """Raises RelayError when the request has been ended while it waited."""
    if exchange.must_end is not None:
        raise interrupt_error(exchange.must_end)


async def begin_another(attempt: Attempt, request: GatewayRequest, outcome: Outcome) -> None:
    """Prepare to ask the same channel again: what it was asked so far becomes a request of its own, with this outcome.

    `request`: what is asked now. Its limits and its money are asked for first: the attempt is as it was when these
    raise RelayError. Raises RelayUnavailable when the record cannot be written, Ended, CancelledError.
    """
    record, run, exchange, before = attempt.record, attempt.run, attempt.exchange, _exchange_beside(attempt.exchange)
    caller, model = before.caller, record.charge.model
    assert caller is not None  # noqa: S101  # it has been admitted
    charge = RequestCharge(run.reservations, caller, model, record.charge.multiplier, run.fallback_price, exchange.wall)
    checks = (*snapshot_cache.snapshot.terms(caller).checks, *model.checks)
    checks += (*attempt.channel.checks, *attempt.candidate.key.checks)
    counted = [check for check in checks if check.kind != SLOTS]  # it keeps its slots
    try:
        if counted:
            await run.admission.admit(before, counted, request.prompt_tokens + (request.output_limit or 0))
        before.tokens_used = 0
        await charge.reserve(exchange, request)
        first = record.set_apart(before, charge, request)
        await first.commit(outcome)
    finally:
        for callback in before.at_end:
            callback()
    attempt.begin_again()
    exchange.check_end()  # it may have been ended meanwhile


def _exchange_beside(exchange: Exchange) -> BackgroundRequest:
    """An exchange beside this one, for the record of a request that was made for it."""
    assert exchange.caller is not None  # noqa: S101
    found = BackgroundRequest(exchange.caller, b"")
    found.ip, found.client = exchange.ip, exchange.client
    found.started, found.wall = exchange.started, exchange.wall
    return found
