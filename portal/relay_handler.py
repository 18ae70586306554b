"""The ASGI handler of /v1: Django's request, resolver and responses without its middleware, signals and thread hops.

What Django's own handler adds, and /v1 does not need, was measured at 3 ms of CPU a request: a hop to a thread for
`request_started`, for each synchronous middleware and for `response.close()`. Nothing here opens files or database
connections, so nothing has to be closed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Set
from functools import partial
from typing import Any, Final

from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, ResolverMatch, get_resolver

from portal import limits
from portal.lib.net import client_ip
from portal.lib.redaction.paths import shown_path
from relay.api.encoding import decoded_body
from relay.api.error_shapes import shape_of
from relay.api.errors import error_response, unknown_route, wrong_method
from relay.api.paths import deployment_of, is_gemini, relay_path
from relay.api.request import RelayRequest, with_key_of_query
from relay.api.respond import base_url_object, json_response
from relay.errors import InternalError, RelayError
from relay.gateway.access.address_limits import address_limits
from relay.gateway.access.authentication import exchanges_seen, name_caller
from relay.gateway.exchange.exchange import AsgiScope, Exchange, Receive, Send
from relay.gateway.exchange.interrupts import ended_error
from relay.gateway.exchange.trace import tracing
from relay.gateway.replies import RESPONSE, Answer, EventStream
from relay.gateway.runtime import runtime

logger: Final = logging.getLogger(__name__)


async def _nothing() -> None:
    return


_EARLY: Final = EventStream(_nothing)  # the head of a stream whose answer has not begun
_JSON: Final = (b"content-type", b"application/json")
_CORS_REQUEST_HEADERS: Final = b", ".join((
    b"authorization", b"content-type", b"x-api-key", b"api-key", b"x-client-request-id", b"x-stainless-*",
    b"openai-organization", b"openai-project", b"openai-beta", b"anthropic-version", b"anthropic-beta",
    b"anthropic-dangerous-direct-browser-access",
))  # fmt: skip
_CORS_EXPOSED_HEADERS: Final = b", ".join((
    b"x-request-id", b"request-id", b"location", b"retry-after", b"retry-after-ms", b"x-should-retry",
    b"openai-processing-ms",
    b"x-relay-cost-usd",
    b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests",
    b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens",
))  # fmt: skip


class RelayHandler(ASGIHandler):
    """Serves the URLs of /v1 and the aliases of them that `relay.api.paths` recognizes."""

    def load_middleware(self, is_async: bool = False) -> None:
        """Load no middleware: this class and the endpoints do authentication, request ids and CORS."""

    def __init__(self) -> None:
        super().__init__()
        self._trusted = settings.TRUSTED_PROXIES
        self._cors_origins = frozenset(settings.CONFIG.cors_origins)
        self._resolver = get_resolver(settings.RELAY_URLCONF)
        _ = self._resolver.url_patterns  # imports all endpoints now, and not for the first request
        self._fixed: dict[str, ResolverMatch] = {}

    # The override is ignored: messages are mutable mappings here.
    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        headers = scope["headers"]
        peer = (scope.get("client") or ("", 0))[0]
        ip = peer
        if self._trusted:
            forwarded = b",".join(value for name, value in headers if name == b"x-forwarded-for")
            ip = client_ip(peer, forwarded.decode("latin-1"), self._trusted)
        gemini = is_gemini(scope["path"])
        if gemini and b"key=" in scope["query_string"]:
            headers = scope["headers"] = with_key_of_query(scope)
        exchange = Exchange(scope, receive, send, ip)
        if tracing.begin is not None:
            exchange.trace = tracing.begin(exchange.headers, scope["method"], shown_path(scope["path"]))
        exchange.error_shape = shape_of(relay_path(scope["path"]) or scope["path"], exchange.headers, gemini)
        if b"content-encoding" in exchange.headers:
            codings = b",".join(value for name, value in headers if name == b"content-encoding")
            exchange.read_through(lambda receive: decoded_body(receive, codings))
        run, counted = None, False
        try:
            run = await runtime()
            run.watchdog.add(exchange)
            if address_limits.limited and scope["method"] != "OPTIONS":
                address_limits.enter(ip, exchange.started)
                counted = True
            if run.config.stream_head_seconds:
                exchange.early_head = partial(self._head, exchange, _EARLY)
            response = await self._respond(exchange, scope)
            await self._send(exchange, response, send, scope)
        except RelayError as error:
            exchange.refusal = error
            await self._send(exchange, _told(exchange, error), send, scope)
        except asyncio.CancelledError:
            if exchange.interrupted is None:
                raise
            # The client has disconnected or does not read its answer: nothing can be sent, and the server closes the
            # connection. Unless the request was ended as if it had.
            await self._tell_ended(exchange, send, scope)
        finally:
            if (seen := exchanges_seen.get()) is not None:
                seen.append((exchange, exchange.progress() if exchange.progress is not None else {}))
            if exchange.trace is not None:
                exchange.trace.end(exchange.request_id, exchange.caller, exchange.refusal)
            if counted:
                address_limits.leave(ip)
            if run is not None:
                run.watchdog.remove(exchange)
                if exchange.refusal is not None:
                    run.refusals.add(exchange, exchange.refusal, f"{scope['method']} {shown_path(scope['path'])}")
            exchange.refusal = None  # its traceback has this exchange

    async def _respond(self, exchange: Exchange, scope: AsgiScope) -> HttpResponseBase:
        method, path = scope["method"], relay_path(scope["path"]) or scope["path"]
        exchange.model_in_path = deployment_of(scope["path"])
        if method == "OPTIONS":
            preflight = HttpResponse(status=204, headers={"allow": "GET, HEAD, POST, DELETE, OPTIONS"})
            del preflight.headers["Content-Type"]
            return preflight
        if method == "HEAD":
            method = "GET"  # `_send` leaves the body out
            if path == "/":
                return Answer(b"")  # by which clients look whether anybody is there
        try:
            match = self._fixed.get(path) or self._resolve(path)
        except Resolver404:
            if path == "/v1" and method == "GET":  # opened in a browser, to see whether the base URL is right
                return json_response(base_url_object(settings.VERSION))
            raise await _refused(exchange, unknown_route(method, path)) from None
        request = RelayRequest(scope, path, exchange)
        request.method = method
        request.resolver_match = match
        try:
            response: HttpResponseBase = await match.func(request, *match.args, **match.kwargs)
        except (RelayError, asyncio.CancelledError):
            raise
        except Exception:
            logger.exception("%s %s failed", method, shown_path(path), extra={"request_id": exchange.request_id})
            exchange.refusal = InternalError()
            return _told(exchange, exchange.refusal)
        if response.status_code == 405:
            allowed = response.headers.get("Allow", "").replace("GET", "GET, HEAD")
            raise await _refused(exchange, wrong_method(method, path, allowed))
        return response

    def _resolve(self, path: str) -> ResolverMatch:
        match = self._resolver.resolve(path)
        if not match.kwargs and not match.args:  # no variable part, so the cache is bounded by the number of endpoints
            self._fixed[path] = match
        return match

    async def _send(self, exchange: Exchange, response: HttpResponseBase, send: Send, scope: AsgiScope) -> None:
        exchange.early_at, head_only = 0.0, scope["method"] == "HEAD"
        if exchange.left:  # there is nobody to send it to; a stream is read on for its usage
            if isinstance(response, EventStream):
                await response.pump()
            await self._tell_ended(exchange, send, scope)
            return
        if exchange.early_start is not None:
            await exchange.early_start
            if isinstance(response, EventStream):
                exchange.begun = True
                await response.pump()
            else:
                await exchange.write_last(exchange.error_event(_body(response)))
            return
        start = self._head(exchange, response)
        at_once = not head_only and RESPONSE in scope.get("extensions", ())
        if isinstance(response, EventStream):
            if at_once and response.opening is not None:
                await send({**start, "type": RESPONSE, "body": response.opening(), "more_body": True})
            else:
                await send(start)
            if head_only:
                response.discard()
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            else:
                exchange.begun = True
                await response.pump()
            return
        body = _body(response)
        if at_once and len(body) <= limits.PIECE_BYTES:
            await send({**start, "type": RESPONSE, "body": body, "more_body": False})
            return
        start["headers"].append((b"content-length", b"%d" % len(body)))
        await send(start)
        if head_only:
            body = b""
        elif len(body) > limits.PIECE_BYTES:
            body = await _send_pieces(send, body)
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _tell_ended(self, exchange: Exchange, send: Send, scope: AsgiScope) -> None:
        """Answer a client that is still there, although its request was ended as if it had left."""
        error = ended_error(exchange.ended_by) if exchange.ended_by is not None else None
        if error is None:
            return
        if exchange.begun:
            if exchange.farewell is None:
                return  # the end has been sent
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        exchange.left, exchange.interrupted, exchange.ended_by = False, None, None
        await self._send(exchange, _told(exchange, error), send, scope)

    def _head(self, exchange: Exchange, response: HttpResponseBase) -> dict[str, Any]:
        headers = [
            (b"x-request-id", exchange.request_id.encode()),
            (b"openai-processing-ms", b"%d" % ((time.monotonic() - exchange.started) * 1000)),
            *exchange.reply_headers,
        ]
        if exchange.error_shape.id_header:
            headers.append((exchange.error_shape.id_header, exchange.request_id.encode()))
        if isinstance(response, Answer):
            headers.append(_JSON)
        elif isinstance(response, EventStream):
            headers += response.head
        else:
            headers.extend(
                (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.items()
            )
        if self._cors_origins:
            headers.extend(_cors(exchange, self._cors_origins))
        if exchange.trace is not None:
            exchange.trace.status = response.status_code
        return {"type": "http.response.start", "status": response.status_code, "headers": headers}


async def _refused(exchange: Exchange, error: RelayError) -> RelayError:
    """The error of a request that reaches no endpoint. It is recorded as others are: under the token that it brings."""
    await name_caller(exchange)
    return error


def _told(exchange: Exchange, error: RelayError) -> HttpResponse:
    """The response with an error, in the client's API."""
    return error_response(error, exchange.error_shape, exchange.request_id)


async def _send_pieces(send: Send, body: bytes) -> bytes:
    """Send a long body but for its end, which is returned.

    Each piece waits until the client has read of the last, so that what waits in memory is counted until then.
    """
    view = memoryview(body)
    last = (len(body) - 1) // limits.PIECE_BYTES * limits.PIECE_BYTES
    for start in range(0, last, limits.PIECE_BYTES):
        piece = bytes(view[start : start + limits.PIECE_BYTES])
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    return bytes(view[last:])


def _body(response: HttpResponseBase) -> bytes:
    # Every response but Answer and EventStream is an HttpResponse, which has content.
    body: bytes = response.body if isinstance(response, Answer) else response.content  # type: ignore[attr-defined]
    return body


def _cors(exchange: Exchange, allowed: Set[str]) -> list[tuple[bytes, bytes]]:
    """CORS headers for a request whose Origin is allowed; empty otherwise."""
    origin = exchange.headers.get(b"origin", b"").decode("latin-1")
    if not origin or (origin not in allowed and "*" not in allowed):
        return []
    wanted = exchange.headers.get(b"access-control-request-headers", b"")
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"vary", b"origin"),
        (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE, OPTIONS"),
        (b"access-control-allow-headers", wanted or _CORS_REQUEST_HEADERS),
        (b"access-control-expose-headers", _CORS_EXPOSED_HEADERS),
        (b"access-control-max-age", b"86400"),
    ]
