"""Middleware of the pages (never of /v1), async so that no page holds a thread longer than its view."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.decorators import async_only_middleware

from portal.lib import net

Next = Callable[[HttpRequest], Awaitable[HttpResponseBase]]

_POLICY = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; connect-src 'self'"


@async_only_middleware
def client_address(get_response: Next) -> Next:
    """Put the caller's real address into REMOTE_ADDR; drop forwarding headers that no trusted proxy wrote."""

    async def middleware(request: HttpRequest) -> HttpResponseBase:
        peer = request.META.get("REMOTE_ADDR", "")
        address = net.parse_address(peer)
        if address is None or not net.inside(address, settings.TRUSTED_PROXIES):
            for header in ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST"):
                request.META.pop(header, None)
        else:
            request.META["REMOTE_ADDR"] = net.client_ip(peer, request.META.get("HTTP_X_FORWARDED_FOR", ""), settings.TRUSTED_PROXIES)
        return await get_response(request)

    return middleware


@async_only_middleware
def content_security_policy(get_response: Next) -> Next:
    """Pages of ours run no inline script. The admin's theme does (Alpine), so the admin is left to Django's own protections."""

    async def middleware(request: HttpRequest) -> HttpResponseBase:
        response = await get_response(request)
        if not request.path.startswith("/admin/"):
            response.headers.setdefault("Content-Security-Policy", _POLICY)
        return response

    return middleware
