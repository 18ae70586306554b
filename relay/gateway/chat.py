"""POST /v1/chat/completions: admit, route, try, answer, record."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import Final

from django.http.response import HttpResponseBase

from portal.lib.money import plain
from relay.billing.count import estimate_prompt
from relay.billing.writer import writer
from relay.errors import InternalError, InvalidRequest, RelayError, UpstreamFailed
from relay.gateway.access import permitted_model
from relay.gateway.attempt import GARBAGE, Upstream, ended_error, open_upstream
from relay.gateway.bill import Bill
from relay.gateway.exchange import Exchange, Interrupt
from relay.gateway.failure import Failure, classify
from relay.gateway.pick import Candidate
from relay.gateway.record import CLIENT_GONE, COMPLETED, INTERNAL, SHUTDOWN, Record, end_reason
from relay.gateway.route import Trial, route
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot import Caller
from relay.gateway.store import store
from relay.gateway.stream import Answer, ChatPump, EventStream
from relay.providers.failures import FailureClass
from relay.wire.chat import BadRequest, ChatRequest, conversation, parse_chat_answer, parse_chat_request
from relay.wire.sse import ChatStream, text_units

logger: Final = logging.getLogger(__name__)
ENDPOINT: Final = "chat.completions"


async def chat_completions(exchange: Exchange, caller: Caller, run: Runtime) -> HttpResponseBase:
    """Serve one request. Raises RelayError, when nothing of an answer has been sent; the record is on disk by then."""
    body = await exchange.read_body(run.config.max_body_bytes)
    _check_end(exchange)
    try:
        request = parse_chat_request(body)
    except BadRequest as bad:
        raise InvalidRequest(bad.message, code=bad.code, param=bad.param) from None
    snapshot = store.snapshot
    model = permitted_model(caller, snapshot, request.model, exchange.wall)
    writer.admit()
    terms = snapshot.terms(caller)
    bill = Bill(run.funds, caller, model, terms.multiplier, run.fallback_price, exchange.wall)
    prompt_tokens = estimate_prompt(request.fields["messages"], request.fields.get("tools"))
    limits = terms.checks + model.checks if model.checks else terms.checks
    if limits:
        await run.gate.admit(exchange, limits, prompt_tokens + (request.output_limit or 0) * request.choices)
        exchange.tokens_used = 0  # until something is
    await bill.reserve(exchange, prompt_tokens, request.output_limit, request.choices, request.stream)
    _check_end(exchange)  # while it waited for money
    record = Record(exchange, run.funds, ENDPOINT, model.name, request.stream, prompt_tokens, bill)
    exchange.sketch = record.sketch
    try:
        return await route(exchange, caller, run, model, record, conversation(request.fields), partial(_attempt, exchange, run, request, record))
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


def _check_end(exchange: Exchange) -> None:
    """Raises RelayError when the request has been ended from outside while it waited here."""
    if exchange.must_end is not None:
        raise ended_error(exchange.must_end)


async def _attempt(exchange: Exchange, run: Runtime, request: ChatRequest, record: Record, candidate: Candidate, trial: Trial) -> HttpResponseBase:
    """One try. Raises Failure, Ended, CancelledError; RelayUnavailable when the answer could not be recorded."""
    channel = candidate.route.channel
    began = time.monotonic()
    body = request.upstream_body(candidate.route.upstream_name, channel.stream_usage, record.bill.clamp, channel.output_field)
    record.sent = True
    upstream = await open_upstream(exchange, run.transport(channel.provider, channel.proxy), candidate, body, store.snapshot.rules)
    try:
        if request.stream:
            return await _stream(exchange, run, request, candidate, record, upstream, trial, began)
        return await _plain(exchange, run, candidate, record, upstream, trial, began)
    except BaseException:
        upstream.close()
        raise


async def _plain(exchange: Exchange, run: Runtime, candidate: Candidate, record: Record, upstream: Upstream, trial: Trial, began: float) -> HttpResponseBase:
    text = await upstream.read_all()
    upstream.close()
    answer = parse_chat_answer(text)
    if answer is None:
        detail = f"the answer ({upstream.content_type or 'no content type'}, {len(text)} bytes) is not a chat completion"
        raise Failure(FailureClass.TRANSIENT, UpstreamFailed(GARBAGE), 200, detail)
    if answer.is_error:
        raise classify(200, {}, text, candidate.route.channel.provider, store.snapshot.rules, inside_200=True)
    trial.answered()
    record.mark_first_token()
    record.end_attempt(candidate, began)
    units = 0.0 if answer.usage else text_units(text)
    await exchange.committed(record.submit(COMPLETED, 200, answer.usage, text_units=units))
    relay_headers(exchange, run, candidate, record, cost=True)
    return Answer(text)


async def _stream(exchange: Exchange, run: Runtime, request: ChatRequest, candidate: Candidate, record: Record, upstream: Upstream, trial: Trial, began: float) -> HttpResponseBase:
    """Wait for the first event, which decides about the status, then hand over to the pump."""
    channel = candidate.route.channel
    scanner = ChatStream(drop_usage=channel.stream_usage and not request.include_usage, watch_finish=not channel.sends_done, choices=request.choices)
    primed: list[bytes] = []
    while not scanner.started and scanner.error is None and not scanner.done:
        data = await upstream.read()
        out = scanner.feed(data) if data else scanner.finish()
        if out:
            primed.append(out)
        if not data:
            break
    if scanner.error is not None and not scanner.started:
        raise classify(200, {}, scanner.error, channel.provider, store.snapshot.rules, inside_200=True)
    if not scanner.started:
        detail = f"the answer ({upstream.content_type or 'no content type'}) ended without a single event"
        raise Failure(FailureClass.TRANSIENT, UpstreamFailed(GARBAGE), 200, detail)
    trial.answered()
    record.mark_first_token()
    record.end_attempt(candidate, began)
    record.delivered = scanner.delivered_units
    pump = ChatPump(exchange, upstream, scanner, record, trial, primed, run.cutting_off, record.bill.meter(exchange, request.output_limit))
    relay_headers(exchange, run, candidate, record)
    return EventStream(pump.run)


def relay_headers(exchange: Exchange, run: Runtime, candidate: Candidate, record: Record, cost: bool = False) -> None:
    """What the relay says about its own part: to everyone when the setting allows, to staff always."""
    if run.tells(exchange):
        own = (time.monotonic() - exchange.started - exchange.upstream_seconds) * 1000
        exchange.reply_headers += (
            (b"x-relay-channel", b"%d" % candidate.route.channel.id),
            (b"x-relay-attempts", b"%d" % len(record.attempts)),
            (b"x-relay-overhead-ms", b"%.1f" % own),
        )
        if cost:
            exchange.reply_headers.append((b"x-relay-cost-usd", plain(record.bill.cost).encode()))
