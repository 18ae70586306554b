"""The error catalogue for users, and the answers to requests that no page can be shown for."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

from django.contrib import admin
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import Group
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseForbidden
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views.defaults import page_not_found, server_error

from accounts.admin.rights import sentences
from accounts.doors import why_refused
from accounts.models import User
from accounts.rights import people_who_may
from portal.middleware import service_unavailable, what_is_away
from relay.api.errors import error_response, unknown_route
from relay.error_texts import WHO, entries

logger = logging.getLogger(__name__)
_MOST_ROLES: Final = 5  # or people, that are named
_GIVES_RIGHTS: Final = "auth.change_group"


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
    away = what_is_away(error)
    if away is None:
        return server_error(request)
    response = service_unavailable(away, error)
    response._has_been_logged = True  # type: ignore[attr-defined]  # or Django would log a traceback for each request
    return response


def refused(request: HttpRequest, exception: Exception) -> HttpResponse:
    """The 403: which right is missing, which roles have it, and whom to ask."""
    user: Any = getattr(request, "user", None)
    context: dict[str, Any] = {"kind": "unknown"}
    if user is not None and user.is_authenticated:
        context = {**_refusal(request, user), "person": user}
    return HttpResponseForbidden(render_to_string("403.html", context))


def _refusal(request: HttpRequest, user: Any) -> dict[str, Any]:
    """Return the context of the page of a refusal. `kind`: not_staff, rights, superusers, nobody or unknown."""
    if not user.is_staff and request.path.startswith("/admin/"):
        roles = user.groups.filter(permissions__isnull=False).distinct().order_by("name")
        names = list(roles.values_list("name", flat=True)[:_MOST_ROLES])
        # Strangers are not told who could give them rights.
        return {"kind": "not_staff", "roles": names, "people": people_who_may(_GIVES_RIGHTS) if names else ""}
    why = why_refused(request)
    if why.nobody:
        return {"kind": "nobody"}
    if why.superusers:
        people = User.objects.filter(is_superuser=True, is_staff=True, is_active=True).order_by("username")
        return {"kind": "superusers", "people": ", ".join(people.values_list("username", flat=True)[:_MOST_ROLES])}
    people_who_help = people_who_may(_GIVES_RIGHTS)
    if not why.rights:
        return {"kind": "unknown", "people": people_who_help}
    roles = Group.objects.order_by("name")
    for right in why.rights:
        app, _dot, code = right.partition(".")
        roles = roles.filter(permissions__content_type__app_label=app, permissions__codename=code)
    names = list(roles.distinct().values_list("name", flat=True)[:_MOST_ROLES])
    known = sentences(admin.site)
    words = [known.get(right, right) for right in why.rights]
    return {"kind": "rights", "rights": words, "roles": names, "people": people_who_help}


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """The page of a form without a valid CSRF token, which has become too old, or whose origin is not known.

    That is another site's, or the portal's own when it does not know its address.
    """
    origin = request.headers.get("origin", "")[:100]
    here = origin.partition("://")[2] == request.META.get("HTTP_HOST", "")
    if origin and here:  # the same host with another scheme: TLS ends before the portal, which cannot know
        logger.warning(
            "a form from %s was refused: the portal does not know this address. Set AIRELAYS_PUBLIC_URL, and "
            "AIRELAYS_TRUSTED_PROXIES to the proxy's address",
            origin,
        )
    return HttpResponseForbidden(render_to_string("403_csrf.html", {"unknown_origin": origin if here else ""}))
