"""Reads a request of /v1/responses and finds the conversation that it continues."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

from portal import limits
from portal.lib.ids import time_ordered_hex
from portal.lib.json import text_of
from relay.endpoints.errors import invalid
from relay.endpoints.files.file_ids import check_fields
from relay.endpoints.files.file_inputs import FileInputs
from relay.endpoints.room import user_room
from relay.endpoints.text.own_objects import check_own
from relay.endpoints.text.response_turn import ENDPOINT, TOO_LONG, ResponseTurn
from relay.errors import InvalidRequest
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.pipeline import check_access, check_end, check_large
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.protocols.fields import BadRequest, absent
from relay.protocols.naming.references import items_named
from relay.protocols.responses.compaction import check_summaries, expand_summaries, resolve_references
from relay.protocols.responses.request import parse_responses_request, sealed_content
from relay.storage import conversations
from relay.storage import responses as stored_responses
from relay.storage.response_history import HistoryTooLong
from relay.storage.room import no_room


async def read_turn(exchange: Exchange, caller: Caller, run: Runtime) -> ResponseTurn:
    """Read and parse a request, and find the conversation that it continues. Raises RelayError."""
    body = await exchange.read_body(run.config.max_body_bytes)
    check_end(exchange)
    if len(body) > limits.LARGE_BODY_BYTES:
        await check_large(exchange, caller, run, ENDPOINT, body)
    try:
        request = parse_responses_request(body, exchange.model_in_path)
        raw_input = request.items()
        check_summaries(raw_input)
        check_access(exchange, caller, ENDPOINT, request.model)  # before anything is looked up or read
        if b'"file_' in body:
            check_fields(request.fields, ("input", "instructions"))
        turn = ResponseTurn(
            request,
            caller,
            raw_input,
            raw_input,
            id=f"resp_{time_ordered_hex()}",
            created=int(exchange.wall),
            lifetime=response_lifetime(run),
            files=FileInputs(caller, run.config.max_request_file_bytes),
        )
        await _check_room(turn)
        refers = any(text_of(item, "type") == "item_reference" for item in raw_input)
        await _find_conversation(turn, run)
        if refers or turn.stored_at is None or (turn.previous is not None and not turn.previous.tokens):
            await turn.read_history()
        known = {text_of(item, "id") for item in turn.history} if refers else set[str]()
        unknown = [one for one in items_named(raw_input, "input") if one.id not in known]
        await check_own(caller.user_id, [*request.named, *unknown])
        turn.expanded_input = resolve_references(raw_input, turn.history) if refers else expand_summaries(raw_input)
        if b'"file_' in body or refers:
            turn.expanded_input = await turn.find_files(turn.expanded_input, "input")
    except BadRequest as bad:
        raise invalid(bad) from None
    if b'"encrypted_content"' in body or turn.conversation_pk:
        turn.makers.update(run.continuity.makers(caller.user_id, filter(None, map(sealed_content, turn.items))))
    return turn


async def _check_room(turn: ResponseTurn) -> None:
    """Raise RequestTooLarge when there is no room for what the client wants to be stored.

    Where it has not said that it wants that, the response is not stored.
    """
    request = turn.parsed
    if not turn.stored and not request.conversation_id:
        return
    left = await user_room.left(turn.caller.user_id)
    if left >= len(request.body):
        return
    if request.background or request.conversation_id or not absent(request.fields.get("store")):
        raise no_room(left)
    turn.lifetime, turn.no_room = None, True


def response_lifetime(run: Runtime) -> timedelta | None:
    """How long responses are stored; None: not at all."""
    return timedelta(days=run.config.response_keep_days) if run.config.response_keep_days else None


async def _find_conversation(turn: ResponseTurn, run: Runtime) -> None:
    """Find the previous response, or read the conversation. Raises RelayError, BadRequest."""
    request, user = turn.parsed, turn.caller.user_id
    if request.previous_id:
        found = await snapshot_cache.in_thread(stored_responses.find_turn, user, request.previous_id)
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
        if not run.continuity.can_name(user, found.channel_id or 0, found.upstream_id, time.time()):
            found = replace(found, upstream_id="")
        turn.previous, turn.unread = found, True
    elif request.conversation_id:
        try:
            found_items = await snapshot_cache.in_thread(
                conversations.conversation_items, user, request.conversation_id
            )
        except HistoryTooLong:
            raise InvalidRequest(TOO_LONG, code="context_length_exceeded", param="conversation") from None
        if found_items is None:
            message = (
                f"There is no conversation “{request.conversation_id[:80]}” of your account. Make one with POST "
                "/v1/conversations."
            )
            raise InvalidRequest(message, code="conversation_not_found", param="conversation")
        turn.conversation_pk, items = found_items
        turn.history = await turn.find_files(expand_summaries(items), "conversation")
