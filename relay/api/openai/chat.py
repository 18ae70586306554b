"""POST /v1/chat/completions."""

from __future__ import annotations

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from ninja import Router

from relay.api.auth import token_auth
from relay.api.request import exchange_of
from relay.endpoints.text import chat
from relay.gateway.runtime import runtime

router = Router(auth=token_auth)


@router.post("/chat/completions", url_name="chat-completions")
async def create_chat_completion(request: HttpRequest) -> HttpResponseBase:
    """Answer a conversation, plain or as a stream of events."""
    exchange = exchange_of(request)
    assert exchange.caller is not None  # noqa: S101  # token_auth has run
    return await chat.chat_completions(exchange, exchange.caller, await runtime())
