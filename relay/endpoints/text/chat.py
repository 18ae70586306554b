"""POST /v1/chat/completions, and the legacy completions: what is sent, and what is made of the answer."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from django.http.response import HttpResponseBase

from portal.lib.ids import time_ordered_hex
from portal.lib.json import decode_object, encode
from relay.billing.estimate import estimate_prompt
from relay.endpoints.files.file_inputs import expand
from relay.endpoints.text.answers import garbage, stream_answer, whole_completion, whole_response
from relay.errors import RelayError, UnsupportedEndpoint
from relay.gateway.attempt import Upstream, open_upstream
from relay.gateway.exchange import Exchange
from relay.gateway.failover import Trial
from relay.gateway.pipeline import GatewayRequest, check_end, invalid, refused_parameter, relay_headers, serve
from relay.gateway.record import COMPLETED, Record
from relay.gateway.replies import Answer
from relay.gateway.routing.selection import Candidate
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ChannelView
from relay.protocols.chat_completions.answer import completed, parse_chat_answer
from relay.protocols.chat_completions.request import ChatRequest, conversation, parse_chat_request
from relay.protocols.chat_completions.stream import ChatStream
from relay.protocols.codec import Codec
from relay.protocols.fields import BadRequest
from relay.protocols.responses import upstream as responses_upstream
from relay.protocols.responses.upstream import ResponsesForm, responses_form
from relay.protocols.responses.upstream_stream import ChatFromResponses
from relay.protocols.token_estimate import text_units
from relay.providers import parameters

ENDPOINT: Final = "chat.completions"
_RESPONSES: Final = "responses"


async def chat_completions(exchange: Exchange, caller: Caller, run: Runtime) -> HttpResponseBase:
    """Serve one request. Raises RelayError, when nothing of an answer has been sent; the record is on disk by then."""
    body = await exchange.read_body(run.config.max_body_bytes)
    check_end(exchange)
    try:
        request = parse_chat_request(body)
        expanded = await expand(request.fields, "messages", caller) if b'"file_' in body else None
    except BadRequest as bad:
        raise invalid(bad) from None
    if expanded is not None:
        request = ChatRequest(encode(expanded), expanded, request.model, request.stream, request.include_usage, request.choices, request.output_limit)
    job = GatewayRequest(
        endpoint=ENDPOINT,
        model=request.model,
        fit=partial(_fit, run, request),
        stream=request.stream,
        prompt_tokens=estimate_prompt(request.fields["messages"], request.fields.get("tools")),
        output_limit=request.output_limit,
        choices=request.choices,
        conversation=conversation(request.fields),
    )
    return await serve(exchange, caller, run, job, partial(_attempt, exchange, run, request))


def _fit(run: Runtime, request: ChatRequest, channel: ChannelView) -> RelayError | None:
    """Why a channel cannot serve this request, None when it can."""
    if run.health.speaks(channel, ENDPOINT):
        policy = channel.policy(ENDPOINT)
        name = parameters.refused(policy, request.fields) if policy else ""
        return refused_parameter(name) if name else None
    if not run.health.speaks(channel, _RESPONSES):
        return UnsupportedEndpoint("The upstream of this model serves no chat. Use another endpoint or another model.", param="model")
    name = parameters.refused({**channel.policy(_RESPONSES), **channel.policy("chat")}, request.fields, converted=True)
    if name:
        return refused_parameter(name)
    try:
        name = parameters.refused_value(channel.policy(_RESPONSES), _converted(request, channel).body)
    except BadRequest as bad:
        return invalid(bad)
    return refused_parameter(name) if name else None


def _converted(request: ChatRequest, channel: ChannelView) -> ResponsesForm:
    """Raises BadRequest."""
    return responses_form(decode_object(request.body) or {}, channel.least_output)


async def _attempt(exchange: Exchange, run: Runtime, request: ChatRequest, record: Record, candidate: Candidate, trial: Trial) -> HttpResponseBase:
    """One try. Raises Failure, Ended, CancelledError; RelayUnavailable when the answer could not be recorded."""
    channel = candidate.route.channel
    began = time.monotonic()
    native = run.health.speaks(channel, ENDPOINT)
    legacy = False
    if native:
        fields, record.dropped = parameters.apply(channel.policy(ENDPOINT), request.fields, channel.strips_nulls)
        body = request.upstream_body(candidate.route.upstream_name, channel.stream_usage, record.charge.clamp, channel.output_field, fields)
    else:
        body, legacy, record.dropped = _responses_body(request, candidate, record)
    record.sent = True
    upstream = await open_upstream(exchange, run.transport(channel.provider, channel.proxy), candidate, body, snapshot_cache.snapshot.rules, ENDPOINT if native else _RESPONSES)
    try:
        if request.stream:
            codec: Codec
            if native:
                codec = ChatStream(drop_usage=channel.stream_usage and not request.include_usage, watch_finish=not channel.sends_done, choices=request.choices)
            else:
                codec = ChatFromResponses(request.include_usage, legacy, f"chatcmpl-{time_ordered_hex()}")
            return await stream_answer(exchange, run, candidate, record, upstream, trial, began, codec, request.output_limit)
        if native:
            return await _plain(exchange, run, candidate, record, upstream, trial, began)
        return await _plain_converted(exchange, run, candidate, record, upstream, trial, began, legacy)
    except BaseException:
        upstream.close()
        raise


def _responses_body(request: ChatRequest, candidate: Candidate, record: Record) -> tuple[bytes, bool, list[str]]:
    channel = candidate.route.channel
    form = _converted(request, channel)
    form.body["model"] = candidate.route.upstream_name
    if record.charge.clamp is not None:
        form.body["max_output_tokens"] = max(record.charge.clamp, channel.least_output)
    if request.stream:
        form.body["stream"] = True
    dropped = [*form.dropped, *parameters.apply_to(channel.policy(_RESPONSES), form.body)]
    return responses_upstream.body_of(form, request.stream), form.legacy, dropped


async def _plain(exchange: Exchange, run: Runtime, candidate: Candidate, record: Record, upstream: Upstream, trial: Trial, began: float) -> HttpResponseBase:
    answer, text = await whole_completion(candidate, upstream)
    trial.answered()
    record.mark_first_token()
    record.end_attempt(candidate, began)
    units = 0.0 if answer.usage else text_units(text)
    text = completed(text, int(exchange.wall))
    await exchange.committed(record.submit(COMPLETED, 200, answer.usage, text_units=units, rows=exchange.kept(200, text)))
    relay_headers(exchange, run, candidate, record, cost=True)
    return Answer(text)


async def _plain_converted(
    exchange: Exchange, run: Runtime, candidate: Candidate, record: Record, upstream: Upstream, trial: Trial, began: float, legacy: bool
) -> HttpResponseBase:
    """A response as the chat completion that the client has asked for."""
    response, _, text = await whole_response(candidate, upstream)
    if response is None:
        raise garbage(upstream, text, "a response that can be decoded")
    trial.answered()
    record.mark_first_token()
    record.end_attempt(candidate, began)
    completion = responses_upstream.completion_of(response, legacy, "" if response.get("id") else f"chatcmpl-{time_ordered_hex()}")
    body = encode(completion)
    found = parse_chat_answer(body)
    usage = found.usage if found else None
    await exchange.committed(record.submit(COMPLETED, 200, usage, text_units=0.0 if usage else text_units(body), rows=exchange.kept(200, body)))
    relay_headers(exchange, run, candidate, record, cost=True)
    return Answer(body)
