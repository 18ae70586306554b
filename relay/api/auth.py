"""Authentication of the routes under /v1."""

from __future__ import annotations

from django.http import HttpRequest

from relay.api.request import exchange_of
from relay.gateway.access.authentication import identify
from relay.gateway.snapshot.callers import Caller


async def token_auth(request: HttpRequest) -> Caller:
    """Authenticate a request by its token; returns the caller. Raises RelayError."""
    exchange = exchange_of(request)
    exchange.caller = await identify(exchange)
    return exchange.caller
