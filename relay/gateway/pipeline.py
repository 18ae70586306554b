"""What every endpoint that asks an upstream has in common: admit, reserve, route, record. The endpoint says what to send and how to read the answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import quote

from django.http.response import HttpResponseBase

from portal.lib.money import plain
from relay.billing.ledger.writer import writer
from relay.errors import InternalError, InvalidRequest, RelayError, UnsupportedParameter
from relay.gateway.access.authorization import check_purpose, permitted_model
from relay.gateway.attempt import ended_error
from relay.gateway.charging.charge import RequestCharge
from relay.gateway.exchange import Exchange, Interrupt
from relay.gateway.failover import Trial, route
from relay.gateway.record import CLIENT_GONE, INTERNAL, SHUTDOWN, Record, end_reason
from relay.gateway.routing.selection import Candidate, Pair
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ChannelView
from relay.protocols.fields import BadRequest
from relay.protocols.usage import Usage

logger: Final = logging.getLogger(__name__)
NO_UNITS: Final = Usage()
Attempt = Callable[[Record, Candidate, Trial], Awaitable[HttpResponseBase]]
Fit = Callable[[ChannelView], RelayError | None]


@dataclass(slots=True)
class GatewayRequest:
    """One request as the gateway sees it.

    `endpoint`: its name in records, of `relay.providers.vendors.PATHS`. `prompt_tokens`: an estimate. `output_limit`: tokens of each of `choices`
    answers, None: it names no limit. `units`: what is known beforehand of images, characters and milliseconds. `exact`: the estimate cannot be
    lowered by asking for less, so it must be covered. `fit`: why a channel cannot serve it, None when it can. `prefer`: where it belongs.
    """

    endpoint: str
    model: str
    fit: Fit
    stream: bool = False
    prompt_tokens: int = 0
    output_limit: int | None = 0
    choices: int = 1
    conversation: str = ""
    units: Usage = NO_UNITS
    exact: bool = False
    prefer: Pair | None = None


async def serve(exchange: Exchange, caller: Caller, run: Runtime, job: GatewayRequest, attempt: Attempt) -> HttpResponseBase:
    """Raises RelayError, when nothing of an answer has been sent; the record is on disk by then."""
    check_end(exchange)
    snapshot = snapshot_cache.snapshot
    check_purpose(caller, job.endpoint.partition(".")[0])
    model = permitted_model(caller, snapshot, job.model, exchange.wall)
    writer.admit()
    terms = snapshot.terms(caller)
    charge = RequestCharge(run.reservations, caller, model, exchange.multiplier(terms.multiplier), run.fallback_price, exchange.wall)
    prompt_tokens = job.prompt_tokens
    limits = terms.checks + model.checks if model.checks else terms.checks
    if limits:
        await run.admission.admit(exchange, limits, prompt_tokens + (job.output_limit or 0) * job.choices)
        exchange.tokens_used = 0  # until something is
    await charge.reserve(exchange, prompt_tokens, job.output_limit, job.choices, job.stream, job.units, job.exact)
    check_end(exchange)  # while it waited for money
    record = Record(exchange, run.reservations, job.endpoint, model.name, job.stream, prompt_tokens, charge)
    record.units = job.units
    exchange.progress = record.progress
    try:
        return await route(exchange, caller, run, model, record, job.conversation, partial(attempt, record), job.fit, job.prefer)
    except RelayError as error:
        failed: RelayError = error
        reason = end_reason(error)
    except asyncio.CancelledError:
        gone = exchange.interrupted is Interrupt.CLIENT_GONE and not run.cutting_off()
        record.submit(CLIENT_GONE if gone else SHUTDOWN, 499 if gone else 503, wait=False)
        raise
    except Exception:
        logger.exception("a request failed", extra={"request_id": exchange.request_id})
        failed, reason = InternalError(), INTERNAL
    if record.attempts and run.tells(exchange):
        exchange.reply_headers.append((b"x-relay-attempts", b"%d" % len(record.attempts)))
    await exchange.committed(record.submit(reason, failed.wire_status, error=failed))
    try:
        raise failed
    finally:
        del failed  # as in `route`


def check_end(exchange: Exchange) -> None:
    """Raises RelayError when the request has been ended from outside while it waited here."""
    if exchange.must_end is not None:
        raise ended_error(exchange.must_end)


def invalid(bad: BadRequest) -> RelayError:
    """What the client is told of a request that cannot be understood, or not be done."""
    kind = UnsupportedParameter if bad.status == 422 else InvalidRequest
    return kind(bad.message, code=bad.code, param=bad.param)


def refused_parameter(name: str) -> RelayError:
    return UnsupportedParameter(f"The upstream of this model does not accept “{name}”. Leave it out, or use another model.", param=name)


def relay_headers(exchange: Exchange, run: Runtime, candidate: Candidate, record: Record, cost: bool = False) -> None:
    """What the relay says about its own part: dropped parameters to everyone; the rest when the setting allows, to staff always."""
    if record.dropped:
        exchange.reply_headers.append((b"x-airelays-ignored-parameters", names_header(record.dropped)))
    if run.tells(exchange):
        own = (time.monotonic() - exchange.started - exchange.upstream_seconds) * 1000
        exchange.reply_headers += (
            (b"x-relay-channel", b"%d" % candidate.route.channel.id),
            (b"x-relay-attempts", b"%d" % len(record.attempts)),
            (b"x-relay-overhead-ms", b"%.1f" % own),
        )
        if cost:
            exchange.reply_headers.append((b"x-relay-cost-usd", plain(record.charge.cost).encode()))


_MOST_NAMES: Final = 2048  # characters


def names_header(names: list[str]) -> bytes:
    """Names of parameters, percent-encoded, cut when there are too many."""

    text = ",".join(quote(name, safe="[].") for name in dict.fromkeys(names))
    return (text if len(text) <= _MOST_NAMES else text[:_MOST_NAMES].rpartition(",")[0] + ",...").encode()
