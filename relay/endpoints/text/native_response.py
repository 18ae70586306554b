"""A turn of /v1/responses at an upstream that speaks the Responses API: bytes pass through.

Only the ids of responses are changed: a response that is stored here has an id of the portal's own, since upstreams'
ids need not be unique. They are in the opening events and in the last one of a stream, which are decoded anyway.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Final, Protocol

from portal.lib.json import Json, encode, object_of
from relay.billing.ledger.rows import RowWrite
from relay.endpoints.overrides import sent_fields, sent_items
from relay.gateway.attempt import Attempt
from relay.gateway.snapshot.callers import Caller
from relay.gateway.upstream import UpstreamAnswer
from relay.protocols.characters import read_for_storage, read_whole_object
from relay.protocols.codec import BrokenOff
from relay.protocols.responses.answer import parse_responses_answer, unfinished_error
from relay.protocols.responses.objects import IGNORED, ignores_previous, response_object, with_ids
from relay.protocols.responses.request import ResponsesRequest, UpstreamTarget
from relay.protocols.responses.stream import ResponsesStream, whole_response
from relay.protocols.responses.unfinished.response import broken_response
from relay.protocols.responses.usage import whole_usage
from relay.protocols.usage import Usage
from relay.providers import parameters
from relay.storage.responses import StoredTurn, is_upstream_id

_API: Final = "responses"
_HISTORY_FIELDS: Final = ("previous_response_id", "conversation")


class Turn(Protocol):
    """The turn that is answered (`response_turn.ResponseTurn`)."""

    parsed: ResponsesRequest
    caller: Caller
    raw_input: list[Json]
    previous: StoredTurn | None
    lifetime: timedelta | None
    in_background: bool
    named: bool
    told: list[Json] | None
    left_out: list[str]

    @property
    def members(self) -> Json: ...
    @property
    def ids(self) -> Json: ...
    @property
    def own_ids(self) -> Json: ...
    @property
    def stored(self) -> bool: ...
    def overridden_members(self, native: bool) -> Json: ...
    def rows(self, attempt: Attempt, response: Json, upstream_id: str = "") -> Sequence[RowWrite]: ...


async def open_response(turn: Turn, attempt: Attempt) -> OpenedResponse:
    """Send a turn as `turn.prepare` has decided. Raises Failure, Ended, CancelledError."""
    channel, record, request = attempt.channel, attempt.record, turn.parsed
    forgetful = attempt.run.continuity.is_forgetful(turn.caller.user_id, channel.id, attempt.exchange.wall)
    stores = channel.stores and not forgetful and not turn.in_background and turn.lifetime is not None
    fields, dropped = parameters.apply(channel.policy(_API), request.fields, channel.strips_nulls)
    fields, _ = sent_fields(attempt, _API, fields, dropped)
    clamp = max(record.charge.clamp, channel.least_output) if record.charge.clamp is not None else None
    told = (request.previous_id or request.conversation_id) and not turn.named
    previous_id = turn.previous.upstream_id if turn.named and turn.previous is not None else ""
    target = UpstreamTarget(attempt.candidate.route.upstream_name, stores, clamp, previous_id)
    items = turn.told if told or turn.told != turn.raw_input else None
    if items is not None:
        items, inside = parameters.items_to_send(channel.policy(_API), items)
        items = list(map(parameters.without_nulls, items)) if channel.strips_nulls else items
        items, removed = sent_items(attempt, _API, items)
        dropped = [*dropped, *(name for name in [*inside, *removed] if name not in dropped)]
    record.dropped = [*turn.left_out, *(name for name in dropped if name not in _HISTORY_FIELDS)]
    upstream = await attempt.open(_API, request.upstream_body(target, fields, items))
    lacks = bool(told) or turn.in_background or (turn.stored and not stores)
    return OpenedResponse(turn, attempt, upstream, stores and request.store, lacks)


class OpenedResponse:
    """An answer in the Responses API, for a client of the same API: its bytes pass through."""

    def __init__(self, turn: Turn, attempt: Attempt, upstream: UpstreamAnswer, stored: bool, lacks: bool) -> None:
        """`stored`: the upstream stores it as well.

        `lacks`: it was not sent every parameter, so members are missing.
        """
        self.upstream, self.received = upstream, b""
        self._turn, self._attempt, self._stored, self._lacks = turn, attempt, stored, lacks
        self._codec: ResponsesStream | None = None
        self._response: Json | None = None
        self._upstream_id = ""

    def codec(self) -> ResponsesStream:
        complete = partial(_complete_response, self._turn)
        turn = self._turn
        self._codec = ResponsesStream(complete, self._lacks, turn.named, turn.own_ids, turn.stored, self._attempt.told)
        return self._codec

    async def read_whole(self) -> tuple[bytes, Usage | None]:
        text = await self.upstream.read_all()
        self.upstream.close()
        text, error = whole_response(text)
        if error is not None:
            raise self._attempt.error_in_body(error)
        answer = parse_responses_answer(text)
        if answer is None:
            raise self._attempt.unreadable_answer(text, "a response")
        if answer.is_error or answer.failed:
            raise self._attempt.error_in_body(text)
        if answer.running:  # it was not asked for one in the background, which is made here
            raise self._attempt.error_in_body(unfinished_error())
        self._upstream_id = answer.id
        response = read_for_storage(text) if self._turn.stored else read_whole_object(text)
        if self._turn.named and response is not None and ignores_previous(response):
            raise self._attempt.error_in_body(IGNORED)  # and it is told everything
        if response is None and self._turn.stored:  # it would be charged and not found
            raise self._attempt.unreadable_answer(text, "a response that can be read as a whole")
        # None: part of it cannot be decoded; the bytes can still be passed on.
        if response is not None and (self._lacks or _is_incomplete(response)):
            response = _complete_response(self._turn, response)
            text = encode(response)
        elif response is not None:
            text = with_ids(text, self._turn.own_ids)
            response.update(self._turn.own_ids)
        self._response = response
        return text, answer.usage

    def rows(self) -> Sequence[RowWrite]:
        codec = self._codec
        response = self._response if codec is None else codec.final
        if response is None:
            return ()
        upstream_id = self._upstream_id if codec is None else codec.upstream_id
        if codec is not None and codec.ignored:
            attempt = self._attempt
            attempt.run.continuity.remember_forgetful(self._turn.caller.user_id, attempt.channel.id, time.time())
            return self._turn.rows(attempt, response)
        if not self._stored or not is_upstream_id(upstream_id):
            return self._turn.rows(self._attempt, response)
        continuity, channel = self._attempt.run.continuity, self._attempt.channel.id
        continuity.remember_id(channel, upstream_id)
        return self._turn.rows(
            self._attempt, response, "" if continuity.is_repeated(channel, upstream_id) else upstream_id
        )

    def so_far(self) -> Json | None:
        return self._codec.so_far() if self._codec is not None and self._turn.stored else None

    def rows_of_broken(self, so_far: Json, end: BrokenOff) -> Sequence[RowWrite]:
        return self._turn.rows(self._attempt, broken_response(so_far, end))


def _complete_response(turn: Turn, response: Json) -> Json:
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
