"""One turn of /v1/responses: loads the conversation so far, and stores the answer if the client wants it stored.

Both are independent of the channel that answers.
"""

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
from relay.endpoints.files.file_inputs import inline_item_files
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
from relay.protocols.responses.compaction import expand_summaries, wants_compaction
from relay.protocols.responses.objects import response_object
from relay.protocols.responses.request import (
    ResponsesRequest,
    UpstreamTarget,
    parse_responses_request,
    without_upstream_ids,
)
from relay.protocols.responses.stream import ResponsesStream, response_of_stream, whole_response
from relay.protocols.responses.usage import whole_usage
from relay.protocols.usage import Usage
from relay.providers import parameters
from relay.providers.classify import Failure
from relay.storage import conversations
from relay.storage import responses as stored_responses

_ENDPOINT: Final = "responses"
CONVERSATION_LIFETIME: Final = timedelta(days=30)  # if responses are not stored at all
_HISTORY_FIELDS: Final = ("previous_response_id", "conversation")


@dataclass(slots=True)
class ResponseTurn:
    """One request of /v1/responses with the conversation so far, for the common text endpoint."""

    parsed: ResponsesRequest
    caller: Caller
    raw_input: list[Json]  # the input as the client sent it, which is what is stored
    expanded_input: list[Json]  # the same with files inlined and references resolved
    history: list[Json] = field(default_factory=list)  # the items of earlier turns
    stored_at: Pair | None = None  # the channel and key whose upstream stores the previous response
    conversation_pk: int = 0  # 0: none
    lifetime: timedelta | None = None  # for which the response is stored, None: not at all
    id: str = ""  # of the response, if the upstream does not choose one
    forced_id: bool = False  # `id` replaces the upstream's
    created: int = 0  # seconds since 1970
    api: str = _ENDPOINT
    endpoint: str = _ENDPOINT  # in usage records
    parameters_renamed: bool = False
    unserved_message: str = "The upstream of this model serves no text. Use another endpoint or another model."
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
    def compacts(self) -> bool:
        """Whether a compaction is asked for instead of an answer."""
        return wants_compaction(self.raw_input)

    @property
    def members(self) -> Json:
        """The decoded request."""
        if self._members is None:
            self._members = decode_object(self.parsed.body) or {}
        return self._members

    @property
    def client(self) -> ResponsesClient:
        if self._client is None:
            ids: Json = {**self.ids, **self.overridden_members(False)}
            self._client = ResponsesClient(
                self.members, [*self.history, *self.expanded_input], ids, time_ordered_hex, lambda: int(time.time())
            )
        return self._client

    @property
    def ids(self) -> Json:
        return {"id": self.id, "created_at": self.created}

    async def open(self, attempt: Attempt) -> _OpenedResponse:
        return await _open(self, attempt)

    def converted_rows(self, attempt: Attempt, answer: Json) -> Sequence[RowWrite]:
        return self.rows(attempt, False, answer)

    def overridden_members(self, native: bool) -> Json:
        """Members of the response that the portal sets, because the upstream was not sent their parameters.

        `native`: the upstream speaks the Responses API.
        """
        found: Json = {}
        if self.forced_id:
            found.update(id=self.id, created_at=self.created, background=True)
        if self.parsed.previous_id:
            found["previous_response_id"] = self.parsed.previous_id
        if self.parsed.conversation_id:
            found["conversation"] = {"id": self.parsed.conversation_id}
        if native and self.parsed.store and self.lifetime is not None:
            found["store"] = True
        return found

    def rows(self, attempt: Attempt, upstream_keeps: bool, response: Json) -> list[RowWrite]:
        """The rows of a stored response and of its conversation, for the commit of the usage record.

        `upstream_keeps`: the upstream stores the response as well.
        """
        found: list[RowWrite] = []
        exchange, (channel, key) = attempt.exchange, attempt.candidate.pair
        raw_input = stored_responses.with_ids(self.raw_input, exchange.request_id.removeprefix("req_"))
        now = time.time()
        if self.lifetime is not None and self.parsed.store:
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
                    input=encode(raw_input).decode(),
                    body=encode(response).decode(),
                    owner="",
                    created_at=Moment(now),
                    expires_at=Moment(now + self.lifetime.total_seconds()),
                )
            )
        if self.conversation_pk:
            for item in (*raw_input, *stored_responses.with_ids(objects_of(response, "output"), time_ordered_hex())):
                found.append(
                    insert(
                        ConversationItem,
                        conversation_id=self.conversation_pk,
                        item_id=text_of(item, "id")[:120],
                        body=encode(item).decode(),
                    )
                )
            found.append(
                update(
                    Conversation,
                    self.conversation_pk,
                    expires_at=Moment(now + (self.lifetime or CONVERSATION_LIFETIME).total_seconds()),
                )
            )
        return found


async def read_turn(exchange: Exchange, caller: Caller, run: Runtime) -> ResponseTurn:
    """Read and parse a request, and load its conversation. Raises RelayError."""
    body = await exchange.read_body(run.config.max_body_bytes)
    check_end(exchange)
    try:
        request = parse_responses_request(body)
        raw_input = request.items()
        turn = ResponseTurn(
            request,
            caller,
            raw_input,
            raw_input,
            id=f"resp_{time_ordered_hex()}",
            created=int(exchange.wall),
            lifetime=response_lifetime(run),
        )
        await _load_history(turn)
        turn.expanded_input = _resolve_references(raw_input, turn.history)
        if b'"file_' in body:
            turn.expanded_input = await inline_item_files(turn.expanded_input, "input", caller)
        turn.history = expand_summaries(turn.history)
        if turn.history and b'"file_id"' in encode(turn.history):
            turn.history = await inline_item_files(
                turn.history, "previous_response_id" if request.previous_id else "conversation", caller
            )
    except BadRequest as bad:
        raise invalid(bad) from None
    return turn


def response_lifetime(run: Runtime) -> timedelta | None:
    """How long responses are stored; None: not at all."""
    return timedelta(days=run.config.response_keep_days) if run.config.response_keep_days else None


async def _load_history(turn: ResponseTurn) -> None:
    """Load the items of earlier turns. Raises RelayError."""
    request = turn.parsed
    if request.previous_id:
        found = await snapshot_cache.in_thread(stored_responses.find_turn, turn.caller.user_id, request.previous_id)
        if found is None:
            message = (
                f"There is no response “{request.previous_id[:80]}” of your account, or it is no longer kept. Send "
                "the whole conversation as “input”."
            )
            raise InvalidRequest(message, code="previous_response_not_found", param="previous_response_id")
        if found.running:
            raise InvalidRequest(
                "That response is still being made. Wait until its status is completed.",
                code="previous_response_not_ready",
                param="previous_response_id",
            )
        turn.history = found.items
        if found.upstream_keeps and found.channel_id is not None:
            turn.stored_at = (found.channel_id, found.key_id or 0)
    elif request.conversation_id:
        found_items = await snapshot_cache.in_thread(
            conversations.conversation_items, turn.caller.user_id, request.conversation_id
        )
        if found_items is None:
            message = (
                f"There is no conversation “{request.conversation_id[:80]}” of your account. Make one with POST "
                "/v1/conversations."
            )
            raise InvalidRequest(message, code="conversation_not_found", param="conversation")
        turn.conversation_pk, turn.history = found_items


def _resolve_references(items: Sequence[Json], history: Sequence[Json]) -> list[Json]:
    """Replace references by the items of the history, where known, and the portal's own summaries by messages."""
    if not any(text_of(item, "type") == "item_reference" for item in items):
        return expand_summaries(items)
    known = {text_of(item, "id"): item for item in history}
    return expand_summaries(
        [known.get(text_of(item, "id"), item) if text_of(item, "type") == "item_reference" else item for item in items]
    )


async def answer_turn(exchange: Exchange, run: Runtime, turn: ResponseTurn) -> HttpResponseBase:
    return await serve(exchange, turn.caller, run, gateway_request(run, turn), partial(try_text, turn))


def gateway_request(run: Runtime, turn: ResponseTurn) -> GatewayRequest:
    """The gateway request of a turn."""
    request = turn.parsed
    texts = (
        bytes(request.fields.get("input", b""))
        if not turn.history and turn.expanded_input == turn.raw_input
        else encode([*turn.history, *turn.expanded_input])
    )
    tools = request.fields.get("tools")
    instructions = request.fields.get("instructions")
    return GatewayRequest(
        endpoint=turn.endpoint,
        model=request.model,
        check_channel=partial(check_text_channel, run, turn),
        stream=request.stream,
        prompt_tokens=estimate_prompt(texts + bytes(instructions or b""), tools),
        output_limit=request.output_limit,
        conversation=request.conversation_id or conversation_key(request.fields),
        prefer=turn.stored_at,
    )


async def _open(turn: ResponseTurn, attempt: Attempt) -> _OpenedResponse:
    """Send a turn to an upstream that speaks the Responses API.

    If it no longer stores the previous response, the request is repeated with the whole conversation.
    """
    channel, record, request = attempt.channel, attempt.record, turn.parsed
    stores = channel.stores and not turn.forced_id and turn.lifetime is not None
    fields, dropped = parameters.apply(channel.policy(_ENDPOINT), request.fields, channel.strips_nulls)
    clamp = max(record.charge.clamp, channel.least_output) if record.charge.clamp is not None else None
    known = turn.stored_at == attempt.candidate.pair and not turn.conversation_pk
    while True:
        items: list[Json] | None = None
        if (request.previous_id or request.conversation_id) and not known:
            items = [*without_upstream_ids(turn.history), *turn.expanded_input]
        elif turn.expanded_input is not turn.raw_input and turn.expanded_input != turn.raw_input:
            items = turn.expanded_input
        target = UpstreamTarget(attempt.candidate.route.upstream_name, stores, clamp, known)
        record.dropped = [name for name in dropped if name not in _HISTORY_FIELDS]
        try:
            upstream = await attempt.open(_ENDPOINT, request.upstream_body(target, fields, items))
        except Failure as failure:
            if (
                known
                and failure.status in {400, 404}
                and "previous_response" in f"{failure.error.public_code} {failure.error.message} {failure.detail}"
            ):
                known = False  # it no longer stores the response; the portal does
                continue
            raise
        not_sent = not known and bool(request.previous_id or request.conversation_id)
        lacks = not_sent or turn.forced_id or (request.store and turn.lifetime is not None and not stores)
        return _OpenedResponse(turn, attempt, upstream, stores and request.store, lacks)


class _OpenedResponse:
    """An answer in the Responses API, for a client of the same API: its bytes pass through."""

    def __init__(
        self, turn: ResponseTurn, attempt: Attempt, upstream: UpstreamAnswer, stored: bool, lacks: bool
    ) -> None:
        """`stored`: the upstream stores it as well.

        `lacks`: it was not sent every parameter, so members are missing.
        """
        self.upstream = upstream
        self._turn, self._attempt, self._stored, self._lacks = turn, attempt, stored, lacks
        self._codec: ResponsesStream | None = None
        self._response: Json | None = None

    def codec(self) -> ResponsesStream:
        self._codec = ResponsesStream(partial(_complete_response, self._turn), self._lacks)
        return self._codec

    async def read_whole(self) -> tuple[bytes, Usage | None]:
        text = await self.upstream.read_all()
        self.upstream.close()
        text, error = (
            whole_response(text) if "text/event-stream" not in self.upstream.content_type else response_of_stream(text)
        )
        if error is not None:
            raise self._attempt.error_in_body(error)
        answer = parse_responses_answer(text)
        if answer is None:
            raise self._attempt.unreadable_answer(text, "a response")
        if answer.is_error or answer.failed:
            raise self._attempt.error_in_body(text)
        # None: part of it cannot be decoded, such as half of a surrogate pair; the bytes can still be passed on.
        response = decode_object(text)
        if response is not None and (self._lacks or _is_incomplete(response)):
            response = _complete_response(self._turn, response)
            text = encode(response)
        self._response = response
        return text, answer.usage

    def rows(self) -> Sequence[RowWrite]:
        response = self._response if self._codec is None else self._codec.final
        return self._turn.rows(self._attempt, self._stored, response) if response is not None else ()


def _complete_response(turn: ResponseTurn, response: Json) -> Json:
    """A response with every member that OpenAI's have, and with those that the portal overrides."""
    complete = response_object(turn.members, turn.ids, turn.parsed.model, [], None, ("in_progress", ""))
    given = {
        name: value
        for name, value in response.items()
        if value is not None or name not in complete or complete[name] is None
    }
    created = given.get("created_at")
    if isinstance(created, float):
        given["created_at"] = int(created)
    if isinstance(given.get("usage"), dict):
        given["usage"] = whole_usage(object_of(given, "usage"))
    return {**complete, **given, **turn.overridden_members(True)}


def _is_incomplete(response: Json) -> bool:
    """Whether an upstream's response lacks members that clients rely on."""
    return (
        any(
            name not in response
            for name in ("id", "object", "created_at", "status", "output", "tools", "metadata", "parallel_tool_calls")
        )
        or not isinstance(response.get("created_at"), int)
        or (bool(response.get("usage")) and "output_tokens_details" not in object_of(response, "usage"))
    )
