"""POST /v1/responses/compact and /v1/responses/input_tokens: asked of upstreams that have them, done here for the others."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

import msgspec
from django.http.response import HttpResponseBase

from portal.lib.ids import time_ordered_hex
from relay import kept
from relay.billing.count import estimate_prompt
from relay.errors import RelayError, UnsupportedEndpoint
from relay.gateway.access import permitted_model
from relay.gateway.attempt import open_upstream
from relay.gateway.chat import garbage
from relay.gateway.exchange import Exchange
from relay.gateway.pick import Candidate
from relay.gateway.record import COMPLETED, Record
from relay.gateway.route import Trial, fitting
from relay.gateway.runtime import Runtime
from relay.gateway.serve import Job, relay_headers, serve
from relay.gateway.snapshot import Caller, ChannelView
from relay.gateway.store import store
from relay.gateway.stream import Answer
from relay.gateway.turn import Turn, answer_turn, read_turn
from relay.wire.compaction import ASK, INSTRUCTIONS, compaction_object
from relay.wire.fields import encode
from relay.wire.responses import ResponsesRequest, for_another_store, user_item
from relay.wire.tree import Json, decode_object
from relay.wire.usage import Usage, parse_responses_usage

_COMPACT: Final = "responses.compact"
_COUNT: Final = "responses.input_tokens"
_SUMMARY_TOKENS: Final = 4096


async def count_input(exchange: Exchange, caller: Caller, run: Runtime) -> HttpResponseBase:
    """How many tokens a request would have. Costs nothing. Raises RelayError."""
    turn = await read_turn(exchange, caller, run)
    model = permitted_model(caller, store.snapshot, turn.request.model, exchange.wall)
    if fitting(caller.routes(model), partial(_speaks, run, _COUNT))[0]:
        try:
            return await _ask(exchange, run, turn, _COUNT)
        except UnsupportedEndpoint:
            pass  # it was thought to have it; what is estimated here will do
    tokens = estimate_prompt(encode([*turn.before, *turn.sent]) + bytes(turn.request.fields.get("instructions", b"")), turn.request.fields.get("tools"))
    return Answer(encode({"object": "response.input_tokens", "input_tokens": tokens}))


async def compact(exchange: Exchange, caller: Caller, run: Runtime) -> HttpResponseBase:
    """A conversation made short. Raises RelayError."""
    turn = await read_turn(exchange, caller, run)
    model = permitted_model(caller, store.snapshot, turn.request.model, exchange.wall)
    if fitting(caller.routes(model), partial(_speaks, run, _COMPACT))[0]:
        try:
            return await _ask(exchange, run, turn, _COMPACT)
        except UnsupportedEndpoint:
            pass  # summarised here instead, through whatever the upstream has
    return await _summarise(exchange, run, turn)


def _speaks(run: Runtime, api: str, channel: ChannelView) -> RelayError | None:
    if run.health.speaks(channel, api) and run.health.speaks(channel, "responses"):
        return None
    return UnsupportedEndpoint(f"The upstream of this model does not serve /v1/{api.replace('.', '/')}.", param="model")


async def _ask(exchange: Exchange, run: Runtime, turn: Turn, api: str) -> HttpResponseBase:
    tokens = estimate_prompt(encode([*turn.before, *turn.sent])) if api == _COMPACT else 0
    job = Job(api, turn.request.model, partial(_speaks, run, api), prompt_tokens=tokens, output_limit=_SUMMARY_TOKENS if api == _COMPACT else 0, prefer=turn.known_at)
    return await serve(exchange, turn.caller, run, job, partial(_attempt, exchange, run, turn, api))


async def _attempt(exchange: Exchange, run: Runtime, turn: Turn, api: str, record: Record, candidate: Candidate, trial: Trial) -> HttpResponseBase:
    began = time.monotonic()
    channel = candidate.route.channel
    fields = {name: raw for name, raw in turn.request.fields.items() if name not in {"previous_response_id", "conversation", "store", "stream", "background"}}
    fields["model"] = msgspec.Raw(encode(candidate.route.upstream_name))
    fields["input"] = msgspec.Raw(encode([*for_another_store(turn.before), *turn.sent]))
    record.sent = api == _COMPACT
    upstream = await open_upstream(exchange, run.transport(channel.provider, channel.proxy), candidate, encode(fields), store.snapshot.rules, api)
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
    await exchange.committed(record.submit(COMPLETED, 200, usage, documents=exchange.kept(200, text)))
    relay_headers(exchange, run, candidate, record, cost=True)
    return Answer(text)


async def _summarise(exchange: Exchange, run: Runtime, turn: Turn) -> HttpResponseBase:
    """Have the model itself write the summary."""
    own: Json = {"model": turn.request.model, "instructions": INSTRUCTIONS, "max_output_tokens": _SUMMARY_TOKENS, "store": False}
    items = [*for_another_store(turn.before), *turn.sent]
    fields = {name: msgspec.Raw(encode(value)) for name, value in own.items()}
    fields["input"] = msgspec.Raw(encode([*items, user_item(ASK)]))
    request = ResponsesRequest(encode(fields), fields, turn.request.model, False, False, False, "", "", _SUMMARY_TOKENS)
    asked = Turn(request, turn.caller, [*items, user_item(ASK)], [*items, user_item(ASK)], id=turn.id, created=turn.created, endpoint=_COMPACT)
    answer = await answer_turn(exchange, run, asked)
    response = decode_object(answer.body if isinstance(answer, Answer) else b"") or {}
    return Answer(encode(compaction_object(f"resp_{time_ordered_hex()}", turn.created, kept.named([*turn.before, *turn.own], time_ordered_hex()), response)))
