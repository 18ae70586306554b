"""The relay stack's ASGI handler: Django's request, resolver and responses without its middleware, signals and thread hops.

What stock Django adds per request, and /v1 does not need, was measured at 3 ms of CPU: a hop to a thread for `request_started`, for each
synchronous middleware and for `response.close()`. Nothing here opens files or database connections, so nothing needs closing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Set
from typing import Any, Final

from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, ResolverMatch, get_resolver

from portal.lib.net import client_ip
from relay.api.errors import error_response, unknown_route, wrong_method
from relay.api.paths import relay_path
from relay.api.request import RelayRequest
from relay.errors import InternalError, RelayError
from relay.gateway.exchange import AsgiScope, Exchange, Receive, Send
from relay.gateway.replies import SSE_HEADERS, Answer, EventStream
from relay.gateway.runtime import runtime

logger: Final = logging.getLogger(__name__)
_JSON: Final = (b"content-type", b"application/json")
_CORS_HEADERS: Final = "authorization, content-type, x-api-key, x-client-request-id, x-stainless-*, openai-organization, openai-project, openai-beta"


class RelayHandler(ASGIHandler):
    """Serves the relay's URLs, in every form that people type them (`relay.api.paths`)."""

    def load_middleware(self, is_async: bool = False) -> None:
        """None: authentication, request ids and CORS of /v1 are done here and in the endpoints."""

    def __init__(self) -> None:
        super().__init__()
        self._trusted = settings.TRUSTED_PROXIES
        self._cors_origins = frozenset(settings.CONFIG.cors_origins)
        self._resolver = get_resolver(settings.RELAY_URLCONF)
        self._fixed: dict[str, ResolverMatch] = {}

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:  # type: ignore[override]  # messages are mutable mappings here
        headers = scope["headers"]
        peer = (scope.get("client") or ("", 0))[0]
        ip = peer
        if self._trusted:
            forwarded = b",".join(value for name, value in headers if name == b"x-forwarded-for")
            ip = client_ip(peer, forwarded.decode("latin-1"), self._trusted)
        exchange = Exchange(scope, receive, send, ip)
        run = None
        try:
            run = await runtime()
            run.watchdog.add(exchange)
            response = await self._respond(exchange, scope)
            await self._send(exchange, response, send)
        except RelayError as error:
            await self._send(exchange, error_response(error), send)
        except asyncio.CancelledError:
            if exchange.interrupted is None:
                raise
            # The client left, or takes no more of its answer: there is nobody to tell, and the server closes the connection.
        finally:
            if run is not None:
                run.watchdog.remove(exchange)

    async def _respond(self, exchange: Exchange, scope: AsgiScope) -> HttpResponseBase:
        method, path = scope["method"], relay_path(scope["path"]) or scope["path"]
        if method == "OPTIONS":
            preflight = HttpResponse(status=204, headers={"allow": "GET, POST, OPTIONS"})
            del preflight.headers["Content-Type"]
            return preflight
        try:
            match = self._fixed.get(path) or self._resolve(path)
        except Resolver404:
            return error_response(unknown_route(method, path))
        request = RelayRequest(scope, path, exchange)
        request.resolver_match = match
        try:
            response: HttpResponseBase = await match.func(request, *match.args, **match.kwargs)
        except (RelayError, asyncio.CancelledError):
            raise
        except Exception:
            logger.exception("%s %s failed", method, path, extra={"request_id": exchange.request_id})
            return error_response(InternalError())
        if response.status_code == 405:
            return error_response(wrong_method(method, path, response.headers.get("Allow", "another method")))
        return response

    def _resolve(self, path: str) -> ResolverMatch:
        match = self._resolver.resolve(path)
        if not match.kwargs and not match.args:  # a path without a variable part: there are as many as there are endpoints
            self._fixed[path] = match
        return match

    async def _send(self, exchange: Exchange, response: HttpResponseBase, send: Send) -> None:
        headers = [
            (b"x-request-id", exchange.request_id.encode()),
            (b"openai-processing-ms", b"%d" % ((time.monotonic() - exchange.started) * 1000)),
            *exchange.reply_headers,
        ]
        if isinstance(response, Answer):
            headers.append(_JSON)
        else:
            headers.extend((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.items())
        if self._cors_origins:
            headers.extend(_cors(exchange, self._cors_origins))
        start: dict[str, Any] = {"type": "http.response.start", "status": response.status_code, "headers": headers}
        if isinstance(response, EventStream):
            if response.is_events:
                headers.extend(SSE_HEADERS)
            await send(start)
            await response.pump()
            return
        body: bytes = response.body if isinstance(response, Answer) else response.content  # type: ignore[attr-defined]  # every other response here is an HttpResponse
        headers.append((b"content-length", b"%d" % len(body)))
        await send(start)
        await send({"type": "http.response.body", "body": body, "more_body": False})


def _cors(exchange: Exchange, allowed: Set[str]) -> list[tuple[bytes, bytes]]:
    """Headers for a browser app of a permitted origin."""
    origin = exchange.headers.get(b"origin", b"").decode("latin-1")
    if not origin or (origin not in allowed and "*" not in allowed):
        return []
    wanted = exchange.headers.get(b"access-control-request-headers", b"")
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"vary", b"origin"),
        (b"access-control-allow-methods", b"GET, POST, DELETE, OPTIONS"),
        (b"access-control-allow-headers", wanted or _CORS_HEADERS.encode()),
        (
            b"access-control-expose-headers",
            b"x-request-id, retry-after, x-should-retry, openai-processing-ms, x-relay-cost-usd, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, "
            b"x-ratelimit-reset-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens",
        ),
        (b"access-control-max-age", b"86400"),
    ]
