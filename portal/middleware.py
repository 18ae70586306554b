"""Middleware of the pages, not of /v1. Async where possible, so that no page occupies a thread longer than its view."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.utils.decorators import async_only_middleware
from django.utils.deprecation import MiddlewareMixin
from django.utils.translation import gettext as _

from portal.lib import net

logger = logging.getLogger(__name__)
GetResponse = Callable[[HttpRequest], Awaitable[HttpResponseBase]]

_POLICY = "; ".join((
    "default-src 'self'", "img-src 'self' data:", "object-src 'none'", "base-uri 'none'", "form-action 'self'",
    "frame-ancestors 'none'", "connect-src 'self'",
))  # fmt: skip


@async_only_middleware
def client_address(get_response: GetResponse) -> GetResponse:
    """Set REMOTE_ADDR to the client's address, and drop forwarding headers that no trusted proxy has set."""

    async def middleware(request: HttpRequest) -> HttpResponseBase:
        peer = request.META.get("REMOTE_ADDR", "")
        address = net.parse_address(peer)
        if address is None or not net.inside(address, settings.TRUSTED_PROXIES):
            for header in ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST"):
                request.META.pop(header, None)
        else:
            request.META["REMOTE_ADDR"] = net.client_ip(
                peer, request.META.get("HTTP_X_FORWARDED_FOR", ""), settings.TRUSTED_PROXIES
            )
        return await get_response(request)

    return middleware


class ServiceUnavailableMiddleware(MiddlewareMixin):
    """Answers with 503 and the name of the service, not with 500, when the database or Redis does not respond."""

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        what = (
            "database"
            if isinstance(error, (OperationalError, InterfaceError))
            else "Redis"
            if type(error).__module__.startswith("redis.")
            else ""
        )
        if not what:
            return None
        logger.error("a page could not be served: the %s does not answer: %s", what, error)
        response = HttpResponse(
            render_to_string("503.html", {"what": _("database") if what == "database" else what}), status=503
        )
        response["Retry-After"] = "10"
        return response


@async_only_middleware
def content_security_policy(get_response: GetResponse) -> GetResponse:
    """Set a Content-Security-Policy that allows no inline script.

    The admin has none: its theme uses Alpine, which evaluates inline expressions.
    """

    async def middleware(request: HttpRequest) -> HttpResponseBase:
        response = await get_response(request)
        if not request.path.startswith("/admin/"):
            redirects_to_provider = (
                request.path.startswith("/accounts/")
                and request.path.endswith("/login/")
                and request.path != "/accounts/login/"
            )
            # Browsers also apply form-action to the target of a redirect after a form: the page that sends people to an
            # identity provider must allow it.
            response.headers.setdefault(
                "Content-Security-Policy",
                _POLICY.replace("form-action 'self'", "form-action 'self' https: http:")
                if redirects_to_provider
                else _POLICY,
            )
        return response

    return middleware
