"""POST /v1/completions over a user's own plan, which has no completions: the prompt is sent as a chat's message."""

from __future__ import annotations

from functools import partial
from typing import Final

from django.http.response import HttpResponseBase

from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode, decode_object, encode
from relay.billing.estimate import estimate_request
from relay.endpoints.errors import invalid
from relay.endpoints.text.chat import ChatTextRequest
from relay.endpoints.text.endpoint import check_text_channel, try_text
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.pipeline import serve
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.protocols.chat_completions.request import parse_chat_request
from relay.protocols.chat_completions.stream import error_event
from relay.protocols.fields import BadRequest, named_model, read_document
from relay.protocols.passthrough.completions_client import CompletionsClient, as_chat

_ENDPOINT: Final = "completions"


def is_for_plan(exchange: Exchange, caller: Caller, body: bytes) -> bool:
    """Whether a request of completions is one for the caller's own plan."""
    plan = snapshot_cache.snapshot.plan_of(caller)
    return plan is not None and (exchange.model_in_path or named_model(body) or "") in plan.models


async def plan_completions(exchange: Exchange, caller: Caller, run: Runtime, body: bytes) -> HttpResponseBase:
    """Serve one request. Raises RelayError if no part of an answer has been sent; the record is on disk by then."""
    try:
        chat = parse_chat_request(encode(as_chat(_document(body))), exchange.model_in_path)
    except BadRequest as bad:
        raise invalid(bad) from None
    request = CompletionsTextRequest(chat, int(exchange.wall))
    size = estimate_request(chat.fields, chat.fields["messages"], chat.content)
    wanted = GatewayRequest(
        endpoint=_ENDPOINT,
        model=chat.model,
        check_channel=partial(check_text_channel, run, request),
        stream=chat.stream,
        prompt_tokens=size.tokens,
        most_prompt=partial(chat.at_most, size.most),
        output_limit=chat.output_limit,
        choices=chat.choices,
        error_event=error_event,
        most_input=chat.most_input,
        least_input=chat.least_input,
    )
    return await serve(exchange, caller, run, wanted, partial(try_text, request))


def _document(body: bytes) -> Json:
    """The members of a body. Raises BadRequest."""
    _, fields, _ = read_document(body, "")
    return {name: decode(raw) for name, raw in fields.items()}


class CompletionsTextRequest(ChatTextRequest):
    """A request of completions, for the common text endpoint."""

    api = _ENDPOINT

    @property
    def client(self) -> CompletionsClient:  # type: ignore[override]
        request = decode_object(self.parsed.body) or {}
        return CompletionsClient(request, self.parsed.include_usage, f"cmpl-{time_ordered_hex()}", self.created)
