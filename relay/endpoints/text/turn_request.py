"""What a turn of /v1/responses asks of the gateway."""

from __future__ import annotations

from functools import partial
from typing import Final

from django.http.response import HttpResponseBase

from portal.lib.json import encode
from relay.billing.estimate import estimate_media, estimate_request
from relay.endpoints.text.endpoint import check_text_channel, overridden_text, try_text
from relay.endpoints.text.response_turn import ResponseTurn
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.pipeline import serve
from relay.gateway.runtime import Runtime
from relay.protocols.chat_completions.request import conversation_key
from relay.protocols.fields import Fields
from relay.protocols.naming.sessions import LONGEST, SessionIds, ids_in_body
from relay.protocols.prompts.content import content_of, models_in_tools
from relay.protocols.prompts.searches import most_searches
from relay.protocols.responses.objects import first_error_event
from relay.protocols.usage import Usage

_MOST_TOKENS: Final = 2_000_000  # that earlier turns are reckoned at, whatever an upstream reported


async def answer_turn(exchange: Exchange, run: Runtime, turn: ResponseTurn) -> HttpResponseBase:
    """Answer a turn, which is stored when it ends. Raises RelayError."""
    if turn.stream and turn.stored:
        turn.running = run.unstored.begin(exchange, turn.caller.user_id, turn.id)
    return await serve(exchange, turn.caller, run, gateway_request(run, turn), partial(try_text, turn))


def gateway_request(run: Runtime, turn: ResponseTurn) -> GatewayRequest:
    """The gateway request of a turn."""
    request = turn.parsed
    if not turn.history and turn.expanded_input == turn.raw_input:
        texts, content = bytes(request.fields.get("input", b"")), request.content
    else:
        texts, content = encode(turn.items), content_of(turn.items)
    earlier = min(turn.previous.tokens, _MOST_TOKENS) if turn.unread and turn.previous is not None else 0
    size = estimate_request(request.fields, texts, content).plus(earlier, earlier)
    named = turn.files is not None and turn.files.size.most > 0
    if turn.files is not None:
        size = size.plus(*turn.files.size)
    known = not (earlier or named) and request.at_most(0, content) is not None

    def media() -> Usage:
        return estimate_media(encode(turn.items))

    return GatewayRequest(
        endpoint=turn.endpoint,
        model=request.model,
        check_channel=partial(check_text_channel, run, turn),
        stream=request.stream,
        prompt_tokens=size.tokens,
        most_prompt=partial(request.at_most, size.most, content),
        output_limit=request.output_limit,
        session=partial(turn_session, request.fields, request.conversation_id),
        conversation=conversation_key(request.fields),
        prefer=turn.preferred,
        error_event=first_error_event,
        most_input=None if named else request.most_input,
        put_in=turn.put_files_in,
        least_input=request.least_input,
        named=models_in_tools(request.fields.get("tools")),
        units=Usage(searches=most_searches(request.fields)),
        input_parts=media,
        dearer_input=media if known else None,
        thinking=request.thinking(),
        overridden=partial(overridden_text, run, turn),
    )


def turn_session(fields: Fields, conversation: str) -> SessionIds:
    """The session of a turn: that which its members name, else its conversation."""
    found = ids_in_body(fields)
    return found if found.session else SessionIds(conversation[:LONGEST])
