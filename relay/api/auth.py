"""Authentication of the routes under /v1."""

from __future__ import annotations

from django.http import HttpRequest

from portal.lib.json import Json
from relay.api.request import exchange_of
from relay.endpoints.realtime import client_secrets
from relay.gateway.access.authentication import identify, presented_token
from relay.gateway.pipeline import count_request
from relay.gateway.runtime import runtime
from relay.gateway.snapshot.callers import Caller


async def token_auth(request: HttpRequest) -> Caller:
    """Authenticate a request by its token; returns the caller. Raises RelayError."""
    exchange = exchange_of(request)
    exchange.caller = await identify(exchange)
    return exchange.caller


async def secret_auth(request: HttpRequest) -> tuple[Caller, Json | None]:
    """Authenticate a request by its token, or by a client secret, whose session is returned. Raises RelayError."""
    exchange = exchange_of(request)
    presented = presented_token(exchange.headers)
    if not presented.startswith(client_secrets.PREFIX):
        return await token_auth(request), None
    exchange.caller, session = await client_secrets.caller_of_client_secret(presented, exchange.wall, exchange.ip)
    return exchange.caller, session


async def counted_auth(request: HttpRequest) -> Caller:
    """As `token_auth`, and count the request against the caller's limits of requests.

    For endpoints that make no request to an upstream, which counts them otherwise. Raises RelayError.
    """
    caller = await token_auth(request)
    await count_request(exchange_of(request), caller, await runtime(), at_once=not _is_short(request))
    return caller


def _is_short(request: HttpRequest) -> bool:
    """Whether a request only reads, ends or deletes something small.

    It does not count among the requests at once: what it looks at, or ends, may be what has all places.
    """
    if request.method == "POST":
        return request.path.endswith("/cancel")
    return not request.path.endswith(("/content", "/results")) and not request.GET.get("stream")
