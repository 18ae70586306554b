"""POST /v1/responses/compact and /v1/responses/input_tokens: asked of upstreams that have them, done here for the others."""

from __future__ import annotations

import time
from typing import Final

import msgspec
from django.http.response import HttpResponseBase

from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode_object, encode
from relay.billing.estimate import estimate_prompt
from relay.endpoints.text.answers import garbage
from relay.endpoints.text.response_turn import ResponseTurn, attempt_turn, job_of, read_turn
from relay.errors import RelayError, UnsupportedEndpoint
from relay.gateway.access.authorization import permitted_model
from relay.gateway.attempt import open_upstream
from relay.gateway.exchange import Exchange
from relay.gateway.failover import Trial
from relay.gateway.pipeline import GatewayRequest, relay_headers, serve
from relay.gateway.record import COMPLETED, Record
from relay.gateway.replies import Answer
from relay.gateway.routing.selection import Candidate
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ChannelView
from relay.protocols.responses.compaction import ASK, INSTRUCTIONS, compaction_object
from relay.protocols.responses.request import ResponsesRequest, for_another_store, user_item
from relay.protocols.responses.usage import parse_responses_usage
from relay.protocols.usage import Usage
from relay.storage import responses as stored_responses

_COMPACT: Final = "responses.compact"
_COUNT: Final = "responses.input_tokens"
_SUMMARY_TOKENS: Final = 4096


async def count_input(exchange: Exchange, caller: Caller, run: Runtime) -> HttpResponseBase:
    """How many tokens a request would have. Costs nothing. Raises RelayError."""
    turn = await read_turn(exchange, caller, run)
    model = permitted_model(caller, snapshot_cache.snapshot, turn.request.model, exchange.wall)
    able = {route.channel.id for route in caller.routes(model) if _speaks(run, _COUNT, route.channel)}
    if not able:
        return _counted(turn)

    def fit(channel: ChannelView) -> RelayError | None:
        return None if channel.id in able else UnsupportedEndpoint("The upstream of this model does not count tokens.", param="model")

    async def attempt(record: Record, candidate: Candidate, trial: Trial) -> HttpResponseBase:
        if _speaks(run, _COUNT, candidate.route.channel):
            return await _ask(exchange, run, turn, _COUNT, record, candidate, trial)
        await exchange.committed(record.submit(COMPLETED, 200))  # it was thought to count, and has just said that it does not
        return _counted(turn)

    return await serve(exchange, caller, run, GatewayRequest(_COUNT, turn.request.model, fit, prefer=turn.known_at), attempt)


async def compact(exchange: Exchange, caller: Caller, run: Runtime) -> HttpResponseBase:
    """A conversation made short. Raises RelayError."""
    turn = await read_turn(exchange, caller, run)
    summary = _summary(turn)

    async def attempt(record: Record, candidate: Candidate, trial: Trial) -> HttpResponseBase:
        if _speaks(run, _COMPACT, candidate.route.channel):
            return await _ask(exchange, run, turn, _COMPACT, record, candidate, trial)
        answer = await attempt_turn(exchange, run, summary, record, candidate, trial)
        response = decode_object(answer.body if isinstance(answer, Answer) else b"") or {}
        return Answer(encode(compaction_object(f"resp_{time_ordered_hex()}", turn.created, stored_responses.named([*turn.before, *turn.own], time_ordered_hex()), response)))

    job = job_of(run, summary)
    job.prefer = turn.known_at
    return await serve(exchange, caller, run, job, attempt)


def _speaks(run: Runtime, api: str, channel: ChannelView) -> bool:
    return run.health.speaks(channel, api) and run.health.speaks(channel, "responses")


def _counted(turn: ResponseTurn) -> Answer:
    """What is estimated here."""
    tokens = estimate_prompt(encode([*turn.before, *turn.sent]) + bytes(turn.request.fields.get("instructions", b"")), turn.request.fields.get("tools"))
    return Answer(encode({"object": "response.input_tokens", "input_tokens": tokens}))


def _summary(turn: ResponseTurn) -> ResponseTurn:
    """The turn in which the model itself writes the summary, for upstreams that do not compact."""
    own: Json = {"model": turn.request.model, "instructions": INSTRUCTIONS, "max_output_tokens": _SUMMARY_TOKENS, "store": False}
    items = [*for_another_store(turn.before), *turn.sent, user_item(ASK)]
    fields = {name: msgspec.Raw(encode(value)) for name, value in own.items()}
    fields["input"] = msgspec.Raw(encode(items))
    request = ResponsesRequest(encode(fields), fields, turn.request.model, False, False, False, "", "", _SUMMARY_TOKENS)
    return ResponseTurn(request, turn.caller, items, items, id=turn.id, created=turn.created, endpoint=_COMPACT)


async def _ask(exchange: Exchange, run: Runtime, turn: ResponseTurn, api: str, record: Record, candidate: Candidate, trial: Trial) -> HttpResponseBase:
    """Have the upstream do it."""
    began = time.monotonic()
    channel = candidate.route.channel
    fields = {name: raw for name, raw in turn.request.fields.items() if name not in {"previous_response_id", "conversation", "store", "stream", "background"}}
    fields["model"] = msgspec.Raw(encode(candidate.route.upstream_name))
    fields["input"] = msgspec.Raw(encode([*for_another_store(turn.before), *turn.sent]))
    record.sent = api == _COMPACT
    upstream = await open_upstream(exchange, run.transport(channel.provider, channel.proxy), candidate, encode(fields), snapshot_cache.snapshot.rules, api)
    try:
        text = await upstream.read_all()
    finally:
        upstream.close()
    found = decode_object(text)
    if found is None or ("input_tokens" if api == _COUNT else "output") not in found:
        raise garbage(upstream, text, f"an answer of {api}")
    trial.answered()
    record.mark_first_token()
    record.end_attempt(candidate, began)
    usage: Usage | None = None
    if api == _COMPACT:
        usage = parse_responses_usage(encode(found["usage"])) if found.get("usage") else None
    await exchange.committed(record.submit(COMPLETED, 200, usage, rows=exchange.kept(200, text)))
    relay_headers(exchange, run, candidate, record, cost=True)
    return Answer(text)
