"""The error catalogue for users, and the answers to requests that no page can be shown for."""

from __future__ import annotations

import logging
import sys

from django.contrib.auth.decorators import login_required
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseForbidden
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views.defaults import page_not_found, server_error

from portal.middleware import service_unavailable, what_is_away
from relay.api.errors import error_response, unknown_route
from relay.error_texts import WHO, entries

logger = logging.getLogger(__name__)


@login_required
def errors(request: HttpRequest) -> HttpResponse:
    return render(
        request, "portal/errors.html", {"entries": [(entry, WHO[entry.who]) for entry in entries()], "here": "errors"}
    )


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The 404: a page for browsers, which ask for HTML, and the API's error for apps."""
    if "text/html" in request.headers.get("accept", "text/html"):
        return page_not_found(request, exception)
    return error_response(unknown_route(request.method or "GET", request.path))


def unreadable(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The 400. A host name that the portal does not know is a fault of its set-up: the page says what to set."""
    return HttpResponseBadRequest(
        render_to_string("400.html", {"unknown_host": isinstance(exception, DisallowedHost)}, request=None)
    )


def broken(request: HttpRequest) -> HttpResponse:
    """The 500, or the 503 when the database or Redis is away and a middleware or the session met it first."""
    error = sys.exc_info()[1]
    what = what_is_away(error)
    if not what:
        return server_error(request)
    logger.error("a page could not be served: the %s does not answer: %s", what, error)
    response = service_unavailable(what)
    response._has_been_logged = True  # type: ignore[attr-defined]  # or Django would log a traceback for each request
    return response


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """The 403 of a form whose origin is not known: of another site, or of a portal that does not know its address."""
    origin = request.headers.get("origin", "")[:100]
    here = origin.partition("://")[2] == request.META.get("HTTP_HOST", "")
    if origin and here:  # the same host with another scheme: TLS ends before the portal, which cannot know
        logger.warning(
            "a form from %s was refused: the portal does not know this address. Set AIRELAYS_PUBLIC_URL, and "
            "AIRELAYS_TRUSTED_PROXIES to the proxy's address",
            origin,
        )
    return HttpResponseForbidden(render_to_string("403_csrf.html", {"unknown_origin": origin if here else ""}))
