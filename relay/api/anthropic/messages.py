"""/v1/messages."""

from __future__ import annotations

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from ninja import Router

from relay.api.auth import token_auth
from relay.api.request import caller_of, exchange_of, query_of
from relay.endpoints.text.apis import messages
from relay.gateway.runtime import runtime

router = Router(auth=token_auth)


@router.post("/messages", url_name="messages")
async def create_message(request: HttpRequest) -> HttpResponseBase:
    """Answer a conversation in Anthropic's API, plain or as a stream of events."""
    beta = query_of(request).get("beta", "") == "true"
    return await messages.create_message(exchange_of(request), caller_of(request), await runtime(), beta)


@router.post("/messages/count_tokens", url_name="messages-count-tokens")
async def count_message_tokens(request: HttpRequest) -> HttpResponseBase:
    """How many tokens a message would have."""
    beta = query_of(request).get("beta", "") == "true"
    return await messages.count_tokens(exchange_of(request), caller_of(request), await runtime(), beta)
