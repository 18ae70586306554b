"""POST /v1/responses/compact and /v1/responses/input_tokens: by upstreams that serve them, by the portal for others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import msgspec
from django.http.response import HttpResponseBase

from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode_object, encode, object_of, text_of
from relay.billing.estimate import estimate_prompt
from relay.endpoints.overrides import note_added, rules_of, sent_items
from relay.endpoints.text.conversation_lookup import read_turn
from relay.endpoints.text.endpoint import ask_amended, check_text_channel
from relay.endpoints.text.response_turn import ENDPOINT, ResponseTurn
from relay.endpoints.text.summary import COMPACT, cut_off, summary_of_turn, write_summary
from relay.endpoints.text.turn_request import gateway_request, turn_session
from relay.errors import RelayError, UnsupportedEndpoint, UnsupportedParameter
from relay.gateway.access.authorization import permitted_model
from relay.gateway.attempt import Attempt
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.outcome import COMPLETED, Outcome
from relay.gateway.pipeline import count_request, serve
from relay.gateway.replies import Answer, EventStream
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ChannelView
from relay.protocols.chat_completions.request import conversation_key
from relay.protocols.error_objects import is_error_object
from relay.protocols.fields import PARAMETERS, Fields
from relay.protocols.responses.compaction import (
    TRIGGER,
    compaction_item,
    compaction_object,
    summary_in,
    upstream_compaction,
    wants_compaction,
    why_incomplete,
)
from relay.protocols.responses.objects import response_object
from relay.protocols.responses.replay import events_of
from relay.protocols.responses.usage import parse_responses_usage
from relay.protocols.usage import Delivered, Usage
from relay.providers import parameters
from relay.providers.classify import Failure
from relay.providers.overrides.apply import to_fields
from relay.storage import responses as stored_responses

_INPUT_TOKENS: Final = "responses.input_tokens"
_ESTIMATED: Final = (b"x-airelays-estimated", b"input_tokens")
_OMITTED: Final = frozenset(("previous_response_id", "conversation", "store", "stream", "background"))
# What OpenAI's compaction endpoint takes (as Codex sends it) of a request that is meant for /responses.
_COMPACT_FIELDS: Final = frozenset(
    ("instructions", "tools", "parallel_tool_calls", "reasoning", "text", "service_tier", "prompt_cache_key")
)
_COUNTED_FIELDS: Final = _COMPACT_FIELDS - {"service_tier", "prompt_cache_key"}  # the same of the one that counts
# Statuses with which an upstream says that it has no such endpoint, or does not take this conversation; and of answers
# without a compaction.
_NOT_COMPACTED: Final = frozenset((200, 400, 404, 405, 422, 501))


async def count_input(exchange: Exchange, caller: Caller, run: Runtime) -> HttpResponseBase:
    """Count the input tokens of a request, free of charge. Raises RelayError."""
    turn = await read_turn(exchange, caller, run)
    await turn.read_whole()
    model = permitted_model(caller, snapshot_cache.snapshot, turn.parsed.model, exchange.wall)
    counting = {route.channel.id for route in caller.routes(model) if _serves(run, _INPUT_TOKENS, route.channel)}
    if not counting:
        await count_request(exchange, caller, run)
        return _estimated_count(exchange, turn)

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
        return _estimated_count(exchange, turn)

    return await serve(
        exchange,
        caller,
        run,
        GatewayRequest(
            _INPUT_TOKENS, turn.parsed.model, check_channel, prefer=turn.preferred, put_in=turn.put_files_in
        ),
        try_channel,
    )


async def compact(exchange: Exchange, caller: Caller, run: Runtime) -> HttpResponseBase:
    """Compact a conversation. Raises RelayError."""
    turn = await read_turn(exchange, caller, run)
    await turn.read_whole()
    summary = summary_of_turn(turn)

    async def try_channel(attempt: Attempt) -> HttpResponseBase:
        if _serves(run, COMPACT, attempt.channel):
            return await _ask_upstream(turn, COMPACT, attempt)

        def answer(response: Json) -> bytes:
            items = stored_responses.with_ids([*turn.history, *turn.raw_input], time_ordered_hex())
            return encode(compaction_object(f"resp_{time_ordered_hex()}", turn.created, items, response))

        return Answer(await write_summary(summary, attempt, answer))

    return await serve(exchange, caller, run, _compaction_request(run, turn, summary), try_channel)


async def answer_trigger(exchange: Exchange, run: Runtime, turn: ResponseTurn) -> HttpResponseBase:
    """Answer a request that ends with a compaction trigger: with a response whose output is one compaction item.

    The response is not stored: what follows it begins with that item. Raises RelayError.
    """
    if turn.parsed.background:
        raise UnsupportedParameter(
            "A compaction is not made in the background: leave “background” out.", param="background"
        )
    await turn.read_whole()
    summary = summary_of_turn(turn)

    def answer(item: Json, usage: Json) -> bytes:
        ids: Json = {**turn.ids, "store": False, "completed_at": int(time.time())}
        end = ("completed", "")
        return encode(response_object(turn.members, ids, turn.parsed.model, [item], usage or None, end))

    def written(response: Json) -> bytes:
        item = compaction_item(f"cmp_{turn.id.partition('_')[2]}", summary_in(response))
        return answer(item, object_of(response, "usage"))

    async def try_channel(attempt: Attempt) -> HttpResponseBase:
        body = await _compacted_upstream(run, turn, attempt, answer)
        if body is None:
            body = await write_summary(summary, attempt, written)
        if not turn.stream:
            return Answer(body)
        return EventStream(partial(exchange.write_last, b"".join(events_of(decode_object(body) or {}))))

    return await serve(exchange, turn.caller, run, _compaction_request(run, turn, summary), try_channel)


def _compaction_request(run: Runtime, turn: ResponseTurn, summary: ResponseTurn) -> GatewayRequest:
    """The gateway request of a summary, which is routed as the turn would be."""
    request = gateway_request(run, summary)
    request.prefer, request.whole = turn.preferred, True
    request.most_input = None  # the summary is of more than the request contains
    request.session = partial(turn_session, turn.fields, turn.parsed.conversation_id)
    request.conversation = conversation_key(turn.fields)

    async def put_in(exchange: Exchange) -> None:
        await turn.put_files_in(exchange)
        await summary.put_files_in(exchange)

    def check_channel(channel: ChannelView) -> RelayError | None:
        """The limit of a summary is the portal's: a plan that takes none is sent none, and nobody is refused for it."""
        taking = replace(channel, refused_limits={}) if channel.refused_limits else channel
        return check_text_channel(run, summary, taking)

    request.put_in, request.check_channel = put_in, check_channel
    return request


async def _compacted_upstream(
    run: Runtime, turn: ResponseTurn, attempt: Attempt, answer: Callable[[Json, Json], bytes]
) -> bytes | None:
    """The answer to a trigger by the upstream's own endpoint; None when it has none, or refuses the request.

    `answer` makes it of the compaction item and the usage. Raises Failure, Ended, RelayUnavailable.
    """
    if not _serves(run, COMPACT, attempt.channel):
        return None
    try:
        found, _ = await _fetch(turn, COMPACT, attempt)
    except Failure as failure:
        if failure.status not in _NOT_COMPACTED:
            raise
        return None
    body = answer(upstream_compaction(found) or {}, object_of(found, "usage"))
    await attempt.finish(body, parse_responses_usage(encode(found["usage"])) if found.get("usage") else None)
    return body


def _serves(run: Runtime, api: str, channel: ChannelView) -> bool:
    return run.health.serves_api(channel, api) and run.health.serves_api(channel, "responses")


def _estimated_count(exchange: Exchange, turn: ResponseTurn) -> Answer:
    """An estimate in place of an upstream's count; the headers say that it is one."""
    exchange.reply_headers.append(_ESTIMATED)
    texts = encode(turn.items) + bytes(turn.parsed.fields.get("instructions", b""))
    tokens = estimate_prompt(texts, turn.parsed.fields.get("tools")).tokens
    tokens += turn.files.size.tokens if turn.files is not None else 0
    return Answer(encode({"object": "response.input_tokens", "input_tokens": tokens}))


async def _ask_upstream(turn: ResponseTurn, api: str, attempt: Attempt) -> HttpResponseBase:
    """Send the request to the upstream's own endpoint."""
    found, text = await _fetch(turn, api, attempt)
    usage: Usage | None = None
    if api == COMPACT:
        usage = parse_responses_usage(encode(found["usage"])) if found.get("usage") else None
    await attempt.finish(text, usage)
    return Answer(text)


def _overridden(attempt: Attempt, api: str, fields: Fields, dropped: list[str]) -> Fields:
    """The members with what the channel's rules for responses make of them, but for what the API would refuse."""
    rules = rules_of(attempt, ENDPOINT)
    if not rules:
        return fields
    if api == COMPACT:
        note_added(attempt, rules)
    sent, ignored = to_fields(rules, fields)
    dropped += (name for name in ignored if name not in dropped)
    taken = _COMPACT_FIELDS if api == COMPACT else _COUNTED_FIELDS
    return {name: raw for name, raw in sent.items() if name in fields or name in taken or name not in PARAMETERS}


async def _fetch(turn: ResponseTurn, api: str, attempt: Attempt) -> tuple[Json, bytes]:
    """The answer of the upstream's own endpoint, decoded and as it came. Raises Failure, Ended."""
    sent = _COMPACT_FIELDS if wants_compaction(turn.raw_input) else turn.fields.keys() - _OMITTED
    known = {name: raw for name, raw in turn.fields.items() if name in sent}
    fields, dropped = parameters.apply(attempt.channel.policy(ENDPOINT), known, attempt.channel.strips_nulls)
    fields = dict(_overridden(attempt, api, fields, dropped))
    fields["model"] = msgspec.Raw(encode(attempt.candidate.route.upstream_name))
    attempt.record.sent = api == COMPACT

    async def ask() -> bytes:
        await turn.prepare(attempt, native=True)
        told = [item for item in turn.told or () if text_of(item, "type") != TRIGGER]
        told, inside = parameters.items_to_send(attempt.channel.policy(ENDPOINT), told)
        told, removed = sent_items(attempt, ENDPOINT, told)
        dropped.extend(name for name in (*inside, *removed) if name not in dropped)
        upstream = await attempt.open(api, encode({**fields, "input": told}))
        return await upstream.read_all()

    text = await ask_amended(turn, attempt, ask)
    attempt.close()
    attempt.record.dropped = [*turn.left_out, *dropped]
    found = decode_object(text)
    answered = found is not None and (
        "input_tokens" in found if api == _INPUT_TOKENS else upstream_compaction(found) is not None
    )
    if found is not None and is_error_object(found, answered):
        raise attempt.error_in_body(text)
    if found is not None and api == COMPACT and (cut := why_incomplete(found)):
        usage = parse_responses_usage(encode(found["usage"])) if found.get("usage") else None
        attempt.answered()
        raise await cut_off(attempt, cut, usage, Delivered.by(text))
    if found is None or not answered:
        raise attempt.unreadable_answer(text, f"an answer of {api}")
    attempt.answered()
    return found, text
