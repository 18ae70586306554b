"""The error catalogue for users."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from relay.error_texts import WHO, entries


@login_required
def errors(request: HttpRequest) -> HttpResponse:
    return render(
        request, "portal/errors.html", {"entries": [(entry, WHO[entry.who]) for entry in entries()], "here": "errors"}
    )
