"""POST /v1/responses/compact and /v1/responses/input_tokens: by upstreams that serve them, by the portal for others."""

from __future__ import annotations

from typing import Final

import msgspec
from django.http.response import HttpResponseBase

from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode_object, encode
from relay.billing.estimate import estimate_prompt
from relay.endpoints.text.endpoint import try_text
from relay.endpoints.text.response_turn import ResponseTurn, gateway_request, read_turn
from relay.errors import RelayError, UnsupportedEndpoint
from relay.gateway.access.authorization import permitted_model
from relay.gateway.attempt import Attempt
from relay.gateway.exchange import Exchange, GatewayRequest
from relay.gateway.pipeline import serve
from relay.gateway.record import COMPLETED, Outcome
from relay.gateway.replies import Answer
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ChannelView
from relay.protocols.responses.compaction import ASK, INSTRUCTIONS, compaction_object
from relay.protocols.responses.request import ResponsesRequest, user_item, without_upstream_ids
from relay.protocols.responses.usage import parse_responses_usage
from relay.protocols.usage import Usage
from relay.storage import responses as stored_responses

_COMPACT: Final = "responses.compact"
_INPUT_TOKENS: Final = "responses.input_tokens"
_SUMMARY_TOKENS: Final = 4096


async def count_input(exchange: Exchange, caller: Caller, run: Runtime) -> HttpResponseBase:
    """Count the input tokens of a request, free of charge. Raises RelayError."""
    turn = await read_turn(exchange, caller, run)
    model = permitted_model(caller, snapshot_cache.snapshot, turn.parsed.model, exchange.wall)
    counting = {route.channel.id for route in caller.routes(model) if _serves(run, _INPUT_TOKENS, route.channel)}
    if not counting:
        return _estimated_count(turn)

    def check_channel(channel: ChannelView) -> RelayError | None:
        return (
            None
            if channel.id in counting
            else UnsupportedEndpoint("The upstream of this model does not count tokens.", param="model")
        )

    async def try_channel(attempt: Attempt) -> HttpResponseBase:
        if _serves(run, _INPUT_TOKENS, attempt.channel):
            return await _ask_upstream(turn, _INPUT_TOKENS, attempt)
        # The channel has denied this API since `counting` was computed.
        await exchange.committed(attempt.record.submit(Outcome(COMPLETED, 200)))
        return _estimated_count(turn)

    return await serve(
        exchange,
        caller,
        run,
        GatewayRequest(_INPUT_TOKENS, turn.parsed.model, check_channel, prefer=turn.stored_at),
        try_channel,
    )


async def compact(exchange: Exchange, caller: Caller, run: Runtime) -> HttpResponseBase:
    """Compact a conversation. Raises RelayError."""
    turn = await read_turn(exchange, caller, run)
    summary = _summary(turn)

    async def try_channel(attempt: Attempt) -> HttpResponseBase:
        if _serves(run, _COMPACT, attempt.channel):
            return await _ask_upstream(turn, _COMPACT, attempt)
        answer = await try_text(summary, attempt)
        response = decode_object(answer.body if isinstance(answer, Answer) else b"") or {}
        items = stored_responses.with_ids([*turn.history, *turn.raw_input], time_ordered_hex())
        return Answer(encode(compaction_object(f"resp_{time_ordered_hex()}", turn.created, items, response)))

    request = gateway_request(run, summary)
    request.prefer = turn.stored_at
    return await serve(exchange, caller, run, request, try_channel)


def _serves(run: Runtime, api: str, channel: ChannelView) -> bool:
    return run.health.serves_api(channel, api) and run.health.serves_api(channel, "responses")


def _estimated_count(turn: ResponseTurn) -> Answer:
    """An estimate in place of an upstream's count."""
    texts = encode([*turn.history, *turn.expanded_input]) + bytes(turn.parsed.fields.get("instructions", b""))
    tokens = estimate_prompt(texts, turn.parsed.fields.get("tools"))
    return Answer(encode({"object": "response.input_tokens", "input_tokens": tokens}))


def _summary(turn: ResponseTurn) -> ResponseTurn:
    """A turn that asks the model for a summary, for upstreams without the compaction endpoint."""
    members: Json = {
        "model": turn.parsed.model,
        "instructions": INSTRUCTIONS,
        "max_output_tokens": _SUMMARY_TOKENS,
        "store": False,
    }
    items = [*without_upstream_ids(turn.history), *turn.expanded_input, user_item(ASK)]
    fields = {name: msgspec.Raw(encode(value)) for name, value in members.items()}
    fields["input"] = msgspec.Raw(encode(items))
    request = ResponsesRequest(encode(fields), fields, turn.parsed.model, False, False, False, "", "", _SUMMARY_TOKENS)
    return ResponseTurn(request, turn.caller, items, items, id=turn.id, created=turn.created, endpoint=_COMPACT)


async def _ask_upstream(turn: ResponseTurn, api: str, attempt: Attempt) -> HttpResponseBase:
    """Send the request to the upstream's own endpoint."""
    omitted = {"previous_response_id", "conversation", "store", "stream", "background"}
    fields = {name: raw for name, raw in turn.parsed.fields.items() if name not in omitted}
    fields["model"] = msgspec.Raw(encode(attempt.candidate.route.upstream_name))
    fields["input"] = msgspec.Raw(encode([*without_upstream_ids(turn.history), *turn.expanded_input]))
    attempt.record.sent = api == _COMPACT
    upstream = await attempt.open(api, encode(fields))
    try:
        text = await upstream.read_all()
    finally:
        upstream.close()
    found = decode_object(text)
    if found is None or ("input_tokens" if api == _INPUT_TOKENS else "output") not in found:
        raise attempt.unreadable_answer(text, f"an answer of {api}")
    attempt.answered()
    usage: Usage | None = None
    if api == _COMPACT:
        usage = parse_responses_usage(encode(found["usage"])) if found.get("usage") else None
    await attempt.finish(text, usage)
    return Answer(text)
