"""The error catalogue for users, and the answer to addresses that do not exist."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.defaults import page_not_found

from relay.api.errors import error_response, unknown_route
from relay.error_texts import WHO, entries


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
