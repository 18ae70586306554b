"""POST /v1/chat/completions: admit, route, try, answer, record."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Final

from django.http.response import HttpResponseBase

from portal.lib.money import plain
from relay.billing.count import estimate_prompt
from relay.billing.writer import writer
from relay.errors import InternalError, InvalidRequest, NoAvailableChannel, RelayError, UpstreamFailed, UpstreamRateLimited
from relay.gateway.access import permitted_model
from relay.gateway.attempt import GARBAGE, Upstream, from_interrupt, open_upstream, revoked
from relay.gateway.bill import Bill
from relay.gateway.exchange import Ended, Exchange, Interrupt
from relay.gateway.failure import Failure, FailureClass, classify
from relay.gateway.gate import Entry
from relay.gateway.limits import Verdict
from relay.gateway.pick import Candidate, pick
from relay.gateway.record import CLIENT_GONE, COMPLETED, INTERNAL, SHUTDOWN, Record, end_reason
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot import Caller, ModelView
from relay.gateway.store import store
from relay.gateway.stream import Answer, ChatPump, EventStream
from relay.wire.chat import BadRequest, ChatRequest, parse_chat_answer, parse_chat_request
from relay.wire.sse import ChatStream, text_units

logger: Final = logging.getLogger(__name__)
ENDPOINT: Final = "chat.completions"

# Which failure the client hears of when several channels failed in different ways: the one that says most about when to come back.
_TELLING: Final = (FailureClass.RATE, FailureClass.OVERLOAD, FailureClass.TRANSIENT, FailureClass.CONFIG, FailureClass.KEY_FORBIDDEN_MODEL)


async def chat_completions(exchange: Exchange, caller: Caller, run: Runtime) -> HttpResponseBase:
    """Serve one request. Raises RelayError, when nothing of an answer has been sent; the record is on disk by then."""
    body = await exchange.read_body(run.config.max_body_bytes)
    if exchange.revoked:
        raise revoked()
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
    if exchange.revoked:  # while it waited for money
        raise revoked()
    record = Record(exchange, run.funds, ENDPOINT, model.name, request.stream, prompt_tokens, bill)
    try:
        return await _route(exchange, caller, run, request, model, record)
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
    await exchange.committed(record.submit(reason, failed.wire_status, error=failed))
    raise failed


async def _route(exchange: Exchange, caller: Caller, run: Runtime, request: ChatRequest, model: ModelView, record: Record) -> HttpResponseBase:
    """Try channel after channel until one answers. Raises RelayError."""
    routes = caller.routes(model)
    tried: set[tuple[int, int]] = set()
    failures: list[Failure] = []
    while len(record.attempts) < run.config.max_attempts:
        candidate = pick(routes, tried, random.random)
        if candidate is None:
            break
        tried.add(candidate.pair)
        entry: Entry | None = None
        if candidate.route.channel.checks:
            entry = await run.gate.enter(exchange, candidate.route.channel.checks, record.prompt_tokens, f"{exchange.request_id}:{candidate.route.channel.id}:{candidate.key.id}")
            if entry.verdict.refused is not None:
                tried.update((candidate.route.channel.id, key.id) for key in candidate.route.channel.keys)
                failures.append(_full(entry.verdict))
                continue
        record.begin_attempt(candidate)
        began = time.monotonic()
        exchange.total_at = exchange.started + candidate.route.channel.timeouts.total
        try:
            return await _attempt(exchange, run, request, candidate, record, began)
        except Ended as ended:
            failure = from_interrupt(ended)
        except Failure as reason:
            failure = reason
        record.end_attempt(candidate, began, failure)
        if entry is not None:
            entry.cancel()
        failures.append(failure)
        if not failure.kind.retry:
            break
    if failures:
        told = _most_telling(failures)
        raise told.error from told
    message = f"No channel can serve the model “{model.name}” at the moment. Tell the portal's administrator; a retry will not help until a channel is enabled."
    nothing = NoAvailableChannel(message)
    nothing.retry = False
    raise nothing


def _full(verdict: Verdict) -> Failure:
    """A channel that is at a limit of its own."""
    kind = verdict.refused.kind if verdict.refused is not None else ""
    message = "Every channel for this model is at a limit that the portal has set for it. Try again after the time in Retry-After."
    return Failure(FailureClass.RATE, UpstreamRateLimited(message, retry_after=verdict.retry_after), 0, f"at its limit of {kind}")


def _most_telling(failures: list[Failure]) -> Failure:
    if not failures[-1].kind.retry:
        return failures[-1]
    for kind in _TELLING:
        for failure in failures:
            if failure.kind is kind:
                return failure
    return failures[-1]


async def _attempt(exchange: Exchange, run: Runtime, request: ChatRequest, candidate: Candidate, record: Record, began: float) -> HttpResponseBase:
    """One try. Raises Failure, Ended, CancelledError; RelayUnavailable when the answer could not be recorded."""
    channel = candidate.route.channel
    body = request.upstream_body(candidate.route.upstream_name, channel.stream_usage, record.bill.clamp, channel.output_field)
    record.sent = True
    upstream = await open_upstream(exchange, run.transport(channel.provider, channel.proxy), candidate, body)
    try:
        if request.stream:
            return await _stream(exchange, run, request, candidate, record, upstream, began)
        return await _plain(exchange, run, candidate, record, upstream, began)
    except BaseException:
        upstream.close()
        raise


async def _plain(exchange: Exchange, run: Runtime, candidate: Candidate, record: Record, upstream: Upstream, began: float) -> HttpResponseBase:
    text = await upstream.read_all()
    upstream.close()
    answer = parse_chat_answer(text)
    if answer is None:
        detail = f"the answer ({upstream.content_type or 'no content type'}, {len(text)} bytes) is not a chat completion"
        raise Failure(FailureClass.TRANSIENT, UpstreamFailed(GARBAGE), 200, detail)
    if answer.is_error:
        raise classify(502, {}, text)
    record.mark_first_token()
    record.end_attempt(candidate, began)
    units = 0.0 if answer.usage else text_units(text)
    await exchange.committed(record.submit(COMPLETED, 200, answer.usage, text_units=units))
    relay_headers(exchange, run, candidate, record, cost=True)
    return Answer(text)


async def _stream(exchange: Exchange, run: Runtime, request: ChatRequest, candidate: Candidate, record: Record, upstream: Upstream, began: float) -> HttpResponseBase:
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
        raise classify(502, {}, scanner.error)
    if not scanner.started:
        detail = f"the answer ({upstream.content_type or 'no content type'}) ended without a single event"
        raise Failure(FailureClass.TRANSIENT, UpstreamFailed(GARBAGE), 200, detail)
    record.mark_first_token()
    record.end_attempt(candidate, began)
    pump = ChatPump(exchange, upstream, scanner, record, primed, run.cutting_off, record.bill.meter(exchange, request.output_limit))
    relay_headers(exchange, run, candidate, record)
    return EventStream(pump.run)


def relay_headers(exchange: Exchange, run: Runtime, candidate: Candidate, record: Record, cost: bool = False) -> None:
    """What the relay says about its own part: to everyone when the setting allows, to staff always."""
    if run.config.relay_headers or (exchange.caller and exchange.caller.is_staff):
        own = (time.monotonic() - exchange.started - exchange.upstream_seconds) * 1000
        exchange.reply_headers += (
            (b"x-relay-channel", b"%d" % candidate.route.channel.id),
            (b"x-relay-attempts", b"%d" % len(record.attempts)),
            (b"x-relay-overhead-ms", b"%.1f" % own),
        )
        if cost:
            exchange.reply_headers.append((b"x-relay-cost-usd", plain(record.bill.cost).encode()))
