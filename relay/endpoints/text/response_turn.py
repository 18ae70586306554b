"""One turn of /v1/responses: what came before is put together here, whatever channel answers; the answer is kept when its client wants it to be."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final

from django.http.response import HttpResponseBase

from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode_object, encode, object_of, objects_of, text_of
from relay.billing.estimate import estimate_prompt
from relay.billing.ledger.rows import Moment, RowWrite, insert, update
from relay.endpoints.files.file_inputs import expand_items
from relay.endpoints.text.answers import garbage, stream_answer, whole_completion, whole_response
from relay.errors import InvalidRequest, RelayError, UnsupportedEndpoint
from relay.gateway.attempt import Upstream, open_upstream
from relay.gateway.exchange import Exchange
from relay.gateway.failover import Trial
from relay.gateway.pipeline import GatewayRequest, check_end, invalid, refused_parameter, relay_headers, serve
from relay.gateway.record import COMPLETED, Record
from relay.gateway.replies import Answer
from relay.gateway.routing.selection import Candidate, Pair
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ChannelView
from relay.models import Conversation, ConversationItem, StoredResponse
from relay.protocols.chat_completions.request import conversation
from relay.protocols.codec import Codec
from relay.protocols.fields import BadRequest
from relay.protocols.responses import client as responses_client
from relay.protocols.responses.client import ChatForm, chat_form, response_object, response_of
from relay.protocols.responses.client_stream import ResponsesFromChat
from relay.protocols.responses.compaction import opened
from relay.protocols.responses.request import ResponsesRequest, for_another_store, parse_responses_request
from relay.protocols.responses.stream import ResponsesStream
from relay.protocols.responses.tools import ToolNames
from relay.protocols.responses.usage_forms import whole_usage
from relay.protocols.token_estimate import text_units
from relay.protocols.usage import Usage
from relay.providers import parameters
from relay.providers.classify import Failure
from relay.storage import conversations
from relay.storage import responses as stored_responses

ENDPOINT: Final = "responses"
_CHAT: Final = "chat.completions"
CONVERSATION_KEEP: Final = timedelta(days=30)  # where responses are not kept at all
_BEFORE: Final = ("previous_response_id", "conversation")


@dataclass(slots=True)
class ResponseTurn:
    """One turn: the request, what came before it, and how it becomes a request of chat.

    `own`: the input as it came, kept as it is; `sent`: the same with files put in. `before`: everything earlier. `known_at`: the channel and
    key whose upstream keeps the previous response. `id`: of the response, where the portal names it.
    """

    request: ResponsesRequest
    caller: Caller
    own: list[Json]
    sent: list[Json]
    before: list[Json] = field(default_factory=list)
    known_at: Pair | None = None
    conversation_pk: int = 0
    keep: timedelta | None = None
    id: str = ""
    forced_id: bool = False
    created: int = 0
    endpoint: str = ENDPOINT
    _members: Json | None = None
    _forms: dict[str, ChatForm] = field(default_factory=dict)

    @property
    def members(self) -> Json:
        """The request, decoded."""
        if self._members is None:
            self._members = decode_object(self.request.body) or {}
        return self._members

    def form(self, output_field: str) -> ChatForm:
        """As a chat request, made once for each dialect. Raises BadRequest."""
        found = self._forms.get(output_field)
        if found is None:
            found = self._forms[output_field] = chat_form(self.members, [*self.before, *self.sent], output_field)
        return found

    @property
    def ids(self) -> Json:
        return {"id": self.id, "created_at": self.created}

    def overrides(self, native: bool) -> Json:
        """What the client has asked for, and an upstream that was not told of it cannot say."""
        found: Json = {}
        if self.forced_id:
            found.update(id=self.id, created_at=self.created, background=True)
        if self.request.previous_id:
            found["previous_response_id"] = self.request.previous_id
        if self.request.conversation_id:
            found["conversation"] = {"id": self.request.conversation_id}
        if native and self.request.store and self.keep is not None:
            found["store"] = True
        return found

    def rows(self, exchange: Exchange, candidate: Candidate, upstream_keeps: bool, response: Json) -> list[RowWrite]:
        """What is written together with the record: the response, and what was said in its conversation."""
        found: list[RowWrite] = []
        channel, key = candidate.pair
        own = stored_responses.named(self.own, exchange.request_id.removeprefix("req_"))
        now = time.time()
        if self.keep is not None and self.request.store:
            found.append(
                insert(
                    StoredResponse,
                    ("user_id", "response_id"),
                    user_id=self.caller.user_id,
                    response_id=text_of(response, "id")[:120],
                    request_id=exchange.request_id,
                    model=self.request.model[:120],
                    channel_id=channel,
                    api_key_id=key or None,
                    upstream_keeps=upstream_keeps,
                    status=text_of(response, "status")[:16],
                    previous_id=self.request.previous_id[:120],
                    conversation_id=self.request.conversation_id[:64],
                    input=encode(own).decode(),
                    body=encode(response).decode(),
                    owner="",
                    created_at=Moment(now),
                    expires_at=Moment(now + self.keep.total_seconds()),
                )
            )
        if self.conversation_pk:
            for item in (*own, *stored_responses.named(objects_of(response, "output"), time_ordered_hex())):
                found.append(insert(ConversationItem, conversation_id=self.conversation_pk, item_id=text_of(item, "id")[:120], body=encode(item).decode()))
            found.append(update(Conversation, self.conversation_pk, expires_at=Moment(now + (self.keep or CONVERSATION_KEEP).total_seconds())))
        return found


async def read_turn(exchange: Exchange, caller: Caller, run: Runtime) -> ResponseTurn:
    """The request with everything that belongs to it. Raises RelayError."""
    body = await exchange.read_body(run.config.max_body_bytes)
    check_end(exchange)
    try:
        request = parse_responses_request(body)
        own = request.items()
        turn = ResponseTurn(request, caller, own, own, id=f"resp_{time_ordered_hex()}", created=int(exchange.wall), keep=keep_for(run))
        await _recall(turn)
        turn.sent = _referred(own, turn.before)
        if b'"file_' in body:
            turn.sent = await expand_items(turn.sent, "input", caller)
        turn.before = opened(turn.before)
        if turn.before and b'"file_id"' in encode(turn.before):
            turn.before = await expand_items(turn.before, "previous_response_id" if request.previous_id else "conversation", caller)
    except BadRequest as bad:
        raise invalid(bad) from None
    return turn


def keep_for(run: Runtime) -> timedelta | None:
    """How long responses are kept, None: not at all."""
    return timedelta(days=run.config.response_keep_days) if run.config.response_keep_days else None


async def _recall(turn: ResponseTurn) -> None:
    """What came before. Raises RelayError."""
    request = turn.request
    if request.previous_id:
        found = await snapshot_cache.in_thread(stored_responses.turn, turn.caller.user_id, request.previous_id)
        if found is None:
            message = f"There is no response “{request.previous_id[:80]}” of your account, or it is no longer kept. Send the whole conversation as “input”."
            raise InvalidRequest(message, code="previous_response_not_found", param="previous_response_id")
        if found.running:
            raise InvalidRequest("That response is still being made. Wait until its status is completed.", code="previous_response_not_ready", param="previous_response_id")
        turn.before = found.items
        if found.upstream_keeps and found.channel_id is not None:
            turn.known_at = (found.channel_id, found.key_id or 0)
    elif request.conversation_id:
        said = await snapshot_cache.in_thread(conversations.conversation_items, turn.caller.user_id, request.conversation_id)
        if said is None:
            message = f"There is no conversation “{request.conversation_id[:80]}” of your account. Make one with POST /v1/conversations."
            raise InvalidRequest(message, code="conversation_not_found", param="conversation")
        turn.conversation_pk, turn.before = said


def _referred(items: Sequence[Json], before: Sequence[Json]) -> list[Json]:
    """Items, with those that are only referred to put in where they are known, and our own summaries written out."""
    if not any(text_of(item, "type") == "item_reference" for item in items):
        return opened(items)
    known = {text_of(item, "id"): item for item in before}
    return opened([known.get(text_of(item, "id"), item) if text_of(item, "type") == "item_reference" else item for item in items])


async def answer_turn(exchange: Exchange, run: Runtime, turn: ResponseTurn) -> HttpResponseBase:
    return await serve(exchange, turn.caller, run, job_of(run, turn), partial(attempt_turn, exchange, run, turn))


def job_of(run: Runtime, turn: ResponseTurn) -> GatewayRequest:
    """The turn, as the gateway sees it."""
    request = turn.request
    said = bytes(request.fields.get("input", b"")) if not turn.before and turn.sent == turn.own else encode([*turn.before, *turn.sent])
    tools = request.fields.get("tools")
    instructions = request.fields.get("instructions")
    return GatewayRequest(
        endpoint=turn.endpoint,
        model=request.model,
        fit=partial(_fit, run, turn),
        stream=request.stream,
        prompt_tokens=estimate_prompt(said + bytes(instructions or b""), tools),
        output_limit=request.output_limit,
        conversation=request.conversation_id or conversation(request.fields),
        prefer=turn.known_at,
    )


def _fit(run: Runtime, turn: ResponseTurn, channel: ChannelView) -> RelayError | None:
    """Why a channel cannot serve this turn, None when it can."""
    fields = turn.request.fields
    if run.health.speaks(channel, ENDPOINT):
        name = parameters.refused(channel.policy(ENDPOINT), fields)
        return refused_parameter(name) if name else None
    if not run.health.speaks(channel, _CHAT):
        return UnsupportedEndpoint("The upstream of this model serves no text. Use another endpoint or another model.", param="model")
    name = parameters.refused(channel.policy(ENDPOINT), fields)
    if name:
        return refused_parameter(name)
    try:
        name = parameters.refused_value(channel.policy(_CHAT), turn.form(channel.output_field).body)
    except BadRequest as bad:
        return invalid(bad)
    return refused_parameter(name) if name else None


async def attempt_turn(exchange: Exchange, run: Runtime, turn: ResponseTurn, record: Record, candidate: Candidate, trial: Trial) -> HttpResponseBase:
    """One try. Raises Failure, Ended, CancelledError; RelayUnavailable when the answer could not be recorded."""
    began = time.monotonic()
    record.sent = True
    native = run.health.speaks(candidate.route.channel, ENDPOINT)
    if native:
        upstream, keeps, always = await _open_native(exchange, run, turn, record, candidate)
        names = ToolNames()
    else:
        upstream, names = await _open_chat(exchange, run, turn, record, candidate)
        keeps = always = False
    try:
        if not turn.request.stream:
            return await _plain(exchange, run, turn, candidate, record, upstream, trial, began, names if not native else None, keeps, always)
        channel = candidate.route.channel
        codec: Codec
        if native:
            codec = ResponsesStream(partial(_completed, turn, True), always)
        else:
            codec = ResponsesFromChat(turn.members, {**turn.ids, **turn.overrides(False)}, names, time_ordered_hex, lambda: int(time.time()), not channel.sends_done)

        def rows() -> Sequence[RowWrite]:
            final = codec.final if isinstance(codec, (ResponsesStream, ResponsesFromChat)) else None
            return turn.rows(exchange, candidate, keeps, final) if final is not None else ()

        return await stream_answer(exchange, run, candidate, record, upstream, trial, began, codec, turn.request.output_limit, rows=rows, ending=b"")
    except BaseException:
        upstream.close()
        raise


def _completed(turn: ResponseTurn, native: bool, response: Json) -> Json:
    """A response with everything that OpenAI's have, and with what only the portal knows."""
    whole = response_object(turn.members, turn.ids, turn.request.model, [], None, "in_progress")
    given = {name: value for name, value in response.items() if value is not None or name not in whole or whole[name] is None}
    created = given.get("created_at")
    if isinstance(created, float):
        given["created_at"] = int(created)
    if isinstance(given.get("usage"), dict):
        given["usage"] = whole_usage(object_of(given, "usage"))
    return {**whole, **given, **turn.overrides(native)}


async def _open_native(exchange: Exchange, run: Runtime, turn: ResponseTurn, record: Record, candidate: Candidate) -> tuple[Upstream, bool, bool]:
    """The upstream's answer; whether the upstream keeps it; whether it lacks what the client has asked for."""
    channel, request = candidate.route.channel, turn.request
    stores = channel.stores and not turn.forced_id and turn.keep is not None
    fields, dropped = parameters.apply(channel.policy(ENDPOINT), request.fields, channel.strips_nulls)
    clamp = max(record.charge.clamp, channel.least_output) if record.charge.clamp is not None else None
    known = turn.known_at == candidate.pair and not turn.conversation_pk
    transport = run.transport(channel.provider, channel.proxy)
    while True:
        items: list[Json] | None = None
        if (request.previous_id or request.conversation_id) and not known:
            items = [*for_another_store(turn.before), *turn.sent]
        elif turn.sent is not turn.own and turn.sent != turn.own:
            items = turn.sent
        body = request.upstream_body(candidate.route.upstream_name, items, stores, clamp, fields, request.stream, known)
        record.dropped = [name for name in dropped if name not in _BEFORE]
        try:
            upstream = await open_upstream(exchange, transport, candidate, body, snapshot_cache.snapshot.rules, ENDPOINT)
        except Failure as failure:
            if known and failure.status in {400, 404} and "previous_response" in f"{failure.error.wire_code} {failure.error.message} {failure.detail}":
                known = False  # it has forgotten; what it knew is known here, too
                continue
            raise
        untold = not known and bool(request.previous_id or request.conversation_id)
        return upstream, stores and request.store, untold or turn.forced_id or (request.store and turn.keep is not None and not stores)


async def _open_chat(exchange: Exchange, run: Runtime, turn: ResponseTurn, record: Record, candidate: Candidate) -> tuple[Upstream, ToolNames]:
    channel = candidate.route.channel
    form = turn.form(channel.output_field)
    body: Json = {**form.body, "model": candidate.route.upstream_name}
    if record.charge.clamp is not None:
        body[channel.output_field] = record.charge.clamp
    record.dropped = [*form.dropped, *parameters.apply_to(channel.policy(_CHAT), body)]
    data = responses_client.body_of(ChatForm(body, form.names), turn.request.stream, channel.stream_usage)
    upstream = await open_upstream(exchange, run.transport(channel.provider, channel.proxy), candidate, data, snapshot_cache.snapshot.rules, _CHAT)
    return upstream, form.names


async def _plain(
    exchange: Exchange, run: Runtime, turn: ResponseTurn, candidate: Candidate, record: Record, upstream: Upstream, trial: Trial, began: float,
    names: ToolNames | None, keeps: bool, always: bool,
) -> HttpResponseBase:  # fmt: skip
    """`names`: what the functions of a chat upstream stand for, None for an upstream that speaks responses."""
    if names is None:
        response, answer, body = await whole_response(candidate, upstream)
        usage = answer.usage
        if response is not None and (always or _lacking(response)):
            response = _completed(turn, True, response)
            body = encode(response)
    else:
        converted, usage = await _converted(turn, candidate, upstream, names)
        response, body = converted, encode(converted)
    trial.answered()
    record.mark_first_token()
    record.end_attempt(candidate, began)
    rows = [*(turn.rows(exchange, candidate, keeps, response) if response is not None else ()), *exchange.kept(200, body)]
    await exchange.committed(record.submit(COMPLETED, 200, usage, text_units=0.0 if usage else text_units(body), rows=rows))
    relay_headers(exchange, run, candidate, record, cost=True)
    return Answer(body)


def _lacking(response: Json) -> bool:
    """Whether an upstream's response lacks members that clients rely on."""
    return (
        any(name not in response for name in ("id", "object", "created_at", "status", "output", "tools", "metadata", "parallel_tool_calls"))
        or not isinstance(response.get("created_at"), int)
        or (bool(response.get("usage")) and "output_tokens_details" not in object_of(response, "usage"))
    )


async def _converted(turn: ResponseTurn, candidate: Candidate, upstream: Upstream, names: ToolNames) -> tuple[Json, Usage | None]:
    answer, text = await whole_completion(candidate, upstream)
    completion = decode_object(text)
    if completion is None:
        raise garbage(upstream, text, "a chat completion that can be decoded")
    fresh = [time_ordered_hex() for _ in range(responses_client.items_of(completion))]
    ids: Json = {**turn.ids, "completed_at": int(time.time()), **turn.overrides(False)}
    return response_of(completion, turn.members, ids, names, fresh), answer.usage
