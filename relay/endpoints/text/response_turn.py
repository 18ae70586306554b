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
from relay.endpoints.errors import invalid
from relay.endpoints.files.file_inputs import expand_items
from relay.endpoints.text.endpoint import check_text_channel, try_text
from relay.errors import InvalidRequest
from relay.gateway.attempt import Attempt
from relay.gateway.exchange import Exchange, GatewayRequest
from relay.gateway.pipeline import check_end, serve
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import Pair
from relay.gateway.upstream import UpstreamAnswer
from relay.models import Conversation, ConversationItem, StoredResponse
from relay.protocols.chat_completions.request import conversation_key
from relay.protocols.fields import BadRequest, Fields
from relay.protocols.responses.answer import parse_responses_answer
from relay.protocols.responses.client import ResponsesClient
from relay.protocols.responses.compaction import expand_summaries
from relay.protocols.responses.objects import response_object
from relay.protocols.responses.request import ResponsesRequest, UpstreamTarget, parse_responses_request, without_upstream_ids
from relay.protocols.responses.stream import ResponsesStream, response_of_stream, whole_response
from relay.protocols.responses.usage import whole_usage
from relay.protocols.usage import Usage
from relay.providers import parameters
from relay.providers.classify import Failure
from relay.storage import conversations
from relay.storage import responses as stored_responses

ENDPOINT: Final = "responses"
CONVERSATION_KEEP: Final = timedelta(days=30)  # where responses are not kept at all
_BEFORE: Final = ("previous_response_id", "conversation")


@dataclass(slots=True)
class ResponseTurn:
    """One request of /v1/responses with everything that came before it, as the endpoint of text takes it."""

    parsed: ResponsesRequest
    caller: Caller
    own: list[Json]  # the input as it came, stored as it is
    sent: list[Json]  # the same with files put in
    before: list[Json] = field(default_factory=list)  # what was said earlier
    known_at: Pair | None = None  # the channel and key whose upstream keeps the previous response
    conversation_pk: int = 0
    keep: timedelta | None = None  # how long the response is stored, None: not at all
    id: str = ""  # of the response, where the portal names it
    forced_id: bool = False  # it does so whatever the upstream says
    created: int = 0  # seconds since 1970
    api: str = ENDPOINT
    endpoint: str = ENDPOINT  # in usage records
    renamed: bool = False
    unserved: str = "The upstream of this model serves no text. Use another endpoint or another model."
    _members: Json | None = None
    _client: ResponsesClient | None = None

    @property
    def fields(self) -> Fields:
        return self.parsed.fields

    @property
    def stream(self) -> bool:
        return self.parsed.stream

    @property
    def output_limit(self) -> int | None:
        return self.parsed.output_limit

    @property
    def members(self) -> Json:
        """The request, decoded."""
        if self._members is None:
            self._members = decode_object(self.parsed.body) or {}
        return self._members

    @property
    def client(self) -> ResponsesClient:
        if self._client is None:
            ids: Json = {**self.ids, **self.overrides(False)}
            self._client = ResponsesClient(self.members, [*self.before, *self.sent], ids, time_ordered_hex, lambda: int(time.time()))
        return self._client

    @property
    def ids(self) -> Json:
        return {"id": self.id, "created_at": self.created}

    async def open(self, attempt: Attempt) -> _OpenedResponse:
        return await _open(self, attempt)

    def converted_rows(self, attempt: Attempt, answer: Json) -> Sequence[RowWrite]:
        return self.rows(attempt, False, answer)

    def overrides(self, native: bool) -> Json:
        """What the client has asked for, and an upstream that was not told of it cannot say."""
        found: Json = {}
        if self.forced_id:
            found.update(id=self.id, created_at=self.created, background=True)
        if self.parsed.previous_id:
            found["previous_response_id"] = self.parsed.previous_id
        if self.parsed.conversation_id:
            found["conversation"] = {"id": self.parsed.conversation_id}
        if native and self.parsed.store and self.keep is not None:
            found["store"] = True
        return found

    def rows(self, attempt: Attempt, upstream_keeps: bool, response: Json) -> list[RowWrite]:
        """What is written together with the record: the response, and what was said in its conversation."""
        found: list[RowWrite] = []
        exchange, (channel, key) = attempt.exchange, attempt.candidate.pair
        own = stored_responses.named(self.own, exchange.request_id.removeprefix("req_"))
        now = time.time()
        if self.keep is not None and self.parsed.store:
            found.append(
                insert(
                    StoredResponse,
                    ("user_id", "response_id"),
                    user_id=self.caller.user_id,
                    response_id=text_of(response, "id")[:120],
                    request_id=exchange.request_id,
                    model=self.parsed.model[:120],
                    channel_id=channel,
                    api_key_id=key or None,
                    upstream_keeps=upstream_keeps,
                    status=text_of(response, "status")[:16],
                    previous_id=self.parsed.previous_id[:120],
                    conversation_id=self.parsed.conversation_id[:64],
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
        turn.before = expand_summaries(turn.before)
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
    request = turn.parsed
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
        return expand_summaries(items)
    known = {text_of(item, "id"): item for item in before}
    return expand_summaries([known.get(text_of(item, "id"), item) if text_of(item, "type") == "item_reference" else item for item in items])


async def answer_turn(exchange: Exchange, run: Runtime, turn: ResponseTurn) -> HttpResponseBase:
    return await serve(exchange, turn.caller, run, gateway_request(run, turn), partial(try_text, turn))


def gateway_request(run: Runtime, turn: ResponseTurn) -> GatewayRequest:
    """The turn, as the gateway sees it."""
    request = turn.parsed
    said = bytes(request.fields.get("input", b"")) if not turn.before and turn.sent == turn.own else encode([*turn.before, *turn.sent])
    tools = request.fields.get("tools")
    instructions = request.fields.get("instructions")
    return GatewayRequest(
        endpoint=turn.endpoint,
        model=request.model,
        check_channel=partial(check_text_channel, run, turn),
        stream=request.stream,
        prompt_tokens=estimate_prompt(said + bytes(instructions or b""), tools),
        output_limit=request.output_limit,
        conversation=request.conversation_id or conversation_key(request.fields),
        prefer=turn.known_at,
    )


async def _open(turn: ResponseTurn, attempt: Attempt) -> _OpenedResponse:
    """Ask an upstream that speaks responses. One that has forgotten the previous response is told the whole conversation instead."""
    channel, record, request = attempt.channel, attempt.record, turn.parsed
    stores = channel.stores and not turn.forced_id and turn.keep is not None
    fields, dropped = parameters.apply(channel.policy(ENDPOINT), request.fields, channel.strips_nulls)
    clamp = max(record.charge.clamp, channel.least_output) if record.charge.clamp is not None else None
    known = turn.known_at == attempt.candidate.pair and not turn.conversation_pk
    while True:
        items: list[Json] | None = None
        if (request.previous_id or request.conversation_id) and not known:
            items = [*without_upstream_ids(turn.before), *turn.sent]
        elif turn.sent is not turn.own and turn.sent != turn.own:
            items = turn.sent
        target = UpstreamTarget(attempt.candidate.route.upstream_name, stores, clamp, known)
        record.dropped = [name for name in dropped if name not in _BEFORE]
        try:
            upstream = await attempt.open(ENDPOINT, request.upstream_body(target, fields, items))
        except Failure as failure:
            if known and failure.status in {400, 404} and "previous_response" in f"{failure.error.public_code} {failure.error.message} {failure.detail}":
                known = False  # it has forgotten; what it knew is known here, too
                continue
            raise
        untold = not known and bool(request.previous_id or request.conversation_id)
        lacks = untold or turn.forced_id or (request.store and turn.keep is not None and not stores)
        return _OpenedResponse(turn, attempt, upstream, stores and request.store, lacks)


class _OpenedResponse:
    """An answer of an upstream that speaks responses, for a client that does."""

    def __init__(self, turn: ResponseTurn, attempt: Attempt, upstream: UpstreamAnswer, keeps: bool, lacks: bool) -> None:
        """`keeps`: the upstream stores it, too. `lacks`: it was not told all that the client has asked for, and its answer does not say it."""
        self.upstream = upstream
        self._turn, self._attempt, self._keeps, self._lacks = turn, attempt, keeps, lacks
        self._codec: ResponsesStream | None = None
        self._response: Json | None = None

    def codec(self) -> ResponsesStream:
        self._codec = ResponsesStream(partial(_completed, self._turn), self._lacks)
        return self._codec

    async def whole(self) -> tuple[bytes, Usage | None]:
        text = await self.upstream.read_all()
        self.upstream.close()
        text, error = whole_response(text) if "text/event-stream" not in self.upstream.content_type else response_of_stream(text)
        if error is not None:
            raise self._attempt.error_in_body(error)
        answer = parse_responses_answer(text)
        if answer is None:
            raise self._attempt.unreadable_answer(text, "a response")
        if answer.is_error or answer.failed:
            raise self._attempt.error_in_body(text)
        # None: something in it (half of a surrogate pair, say) cannot be decoded; its bytes can still be passed on.
        response = decode_object(text)
        if response is not None and (self._lacks or _lacking(response)):
            response = _completed(self._turn, response)
            text = encode(response)
        self._response = response
        return text, answer.usage

    def rows(self) -> Sequence[RowWrite]:
        response = self._response if self._codec is None else self._codec.final
        return self._turn.rows(self._attempt, self._keeps, response) if response is not None else ()


def _completed(turn: ResponseTurn, response: Json) -> Json:
    """A response with everything that OpenAI's have, and with what only the portal knows."""
    whole = response_object(turn.members, turn.ids, turn.parsed.model, [], None, ("in_progress", ""))
    given = {name: value for name, value in response.items() if value is not None or name not in whole or whole[name] is None}
    created = given.get("created_at")
    if isinstance(created, float):
        given["created_at"] = int(created)
    if isinstance(given.get("usage"), dict):
        given["usage"] = whole_usage(object_of(given, "usage"))
    return {**whole, **given, **turn.overrides(True)}


def _lacking(response: Json) -> bool:
    """Whether an upstream's response lacks members that clients rely on."""
    return (
        any(name not in response for name in ("id", "object", "created_at", "status", "output", "tools", "metadata", "parallel_tool_calls"))
        or not isinstance(response.get("created_at"), int)
        or (bool(response.get("usage")) and "output_tokens_details" not in object_of(response, "usage"))
    )
