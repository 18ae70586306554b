"""Middleware of the pages, not of /v1. Async where possible, so that no page occupies a thread longer than its view."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urljoin

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.utils.decorators import async_only_middleware
from django.utils.deprecation import MiddlewareMixin
from django.utils.encoding import iri_to_uri
from django.utils.translation import gettext as _

from portal.lib import net
from portal.services import databases, redis

logger = logging.getLogger(__name__)
GetResponse = Callable[[HttpRequest], Awaitable[HttpResponseBase]]

_POLICY = "; ".join((
    "default-src 'self'", "img-src 'self' data:", "object-src 'none'", "base-uri 'none'", "form-action 'self'",
    "frame-ancestors 'none'", "connect-src 'self'",
))  # fmt: skip


# Headers by which a request shows that it came through a proxy.
_OF_PROXIES: Final = (
    "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST", "HTTP_FORWARDED", "HTTP_X_REAL_IP",
    "HTTP_VIA",
)  # fmt: skip
PROBES: Final = frozenset({"/healthz", "/readyz"})
_SAID_SECONDS: Final = 60.0  # between log lines about the same fault of a proxy


@async_only_middleware
def readable_address(get_response: GetResponse) -> GetResponse:
    """Refuse addresses and cookies with a NUL in them. No database but SQLite stores one, and no page means one."""

    async def middleware(request: HttpRequest) -> HttpResponseBase:
        parts = (unquote(request.META.get("QUERY_STRING", "")), request.path, *request.COOKIES.values())
        if any("\x00" in part for part in parts):
            if request.path.startswith("/api/"):
                said = {"code": "bad_request", "message": _("No address has a NUL character in it."), "fields": {}}
                return JsonResponse({"error": said}, status=400)
            return HttpResponseBadRequest(render_to_string("400.html"))
        return await get_response(request)

    return middleware


class ReadableFormMiddleware(MiddlewareMixin):
    """Refuses forms with a NUL in them, for the views that read them without one of Django's forms."""

    async def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        if request.method == "POST" and any(
            "\x00" in value for _name, values in request.POST.lists() for value in values
        ):
            return HttpResponseBadRequest(render_to_string("400.html"))
        return None


@async_only_middleware
def client_address(get_response: GetResponse) -> GetResponse:
    """Set REMOTE_ADDR to the client's address, and drop forwarding headers that no trusted proxy has set.

    Links that leave the page begin with the configured address. With one of https, a request whose proxy is not
    believed, or does not say how the client came, is answered with what to set: a redirect would go round for ever.
    """
    said: dict[str, float] = {}

    async def middleware(request: HttpRequest) -> HttpResponseBase:
        peer = request.META.get("REMOTE_ADDR", "")
        address = net.parse_address(peer)
        proxied = any(header in request.META for header in _OF_PROXIES)
        scheme = request.META.get("HTTP_X_FORWARDED_PROTO", "")
        trusted = address is not None and net.inside(address, settings.TRUSTED_PROXIES)
        if not trusted:
            for header in ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST"):
                request.META.pop(header, None)
        else:
            request.META["REMOTE_ADDR"] = net.client_ip(
                peer, request.META.get("HTTP_X_FORWARDED_FOR", ""), settings.TRUSTED_PROXIES
            )
        if settings.CONFIG.public_url:
            # Instead of the host that the proxy has sent, which may lack the port, or be the portal's own.
            request.build_absolute_uri = partial(_absolute, request)  # type: ignore[method-assign]
        fault = _fault_of_proxy(trusted, scheme) if proxied and settings.SECURE_SSL_REDIRECT else ""
        if request.path in PROBES:
            request.COOKIES.clear()  # a session would be read from the database, which may be away
        elif fault:
            now = time.monotonic()
            if said.get(fault, 0.0) + _SAID_SECONDS < now:
                said[fault] = now
                logger.warning("the proxy %s: %s", peer, fault)
            return HttpResponse(render_to_string("proxy.html", {"trusted": trusted}), status=502)
        return await get_response(request)

    return middleware


def _fault_of_proxy(trusted: bool, scheme: str) -> str:
    """Why the portal cannot see how a request came to its proxy; empty if it can."""
    if trusted:
        return "" if scheme else "it sends no X-Forwarded-Proto, so requests seem to come without TLS"
    # A stranger who says that it came without TLS is redirected.
    if scheme.startswith("http") and not scheme.startswith("https"):
        return ""
    return "it is not among AIRELAYS_TRUSTED_PROXIES, so its X-Forwarded-Proto is not believed"


def _absolute(request: HttpRequest, location: str | None = None) -> str:
    """`request.build_absolute_uri` with the configured address."""
    return iri_to_uri(urljoin(f"{settings.CONFIG.public_url}{request.path}", location or request.get_full_path()))


class Away(NamedTuple):
    """A service that cannot be used."""

    what: str  # `database` or `Redis`
    answers: bool  # it answers that it cannot do what was asked, such as a write to a replica


def what_is_away(error: BaseException | None) -> Away | None:
    """The service that cannot be used, by an error or one that it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        refused = databases.takes_no_writes(error)
        if refused or isinstance(error, (OperationalError, InterfaceError)):
            return Away("database", refused)
        if type(error).__module__.startswith("redis."):
            return Away("Redis", redis.fault_of(error) != redis.SILENT)
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def service_unavailable(away: Away, error: BaseException | None) -> HttpResponse:
    """The page that says which service cannot be used; logs the error."""
    state = "cannot be used" if away.answers else "does not answer"
    logger.error("a page could not be served: the %s %s: %s", away.what, state, error)
    context = {"what": _("database") if away.what == "database" else away.what, "answers": away.answers}
    response = HttpResponse(render_to_string("503.html", context), status=503)
    response["Retry-After"] = "10"
    return response


class ServiceUnavailableMiddleware(MiddlewareMixin):
    """Answers with 503 and the name of the service, not with 500, when the database or Redis cannot be used.

    Errors of views only; those of middleware and sessions reach `portal.pages.errors.broken`.
    """

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        away = what_is_away(error)
        return service_unavailable(away, error) if away is not None else None


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
