"""How often a door may be tried. Counted by django-ratelimit: over all workers where there is Redis, else by each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django_ratelimit.core import is_ratelimited

from accounts.models import AuditEvent

View = Callable[..., HttpResponseBase]


def too_many(request: HttpRequest) -> HttpResponse:
    """The page for somebody who tried too often."""
    response = render(request, "429.html", status=429)
    response["Retry-After"] = "300"
    return response


def throttled(view: View, group: str, **rates: str) -> View:
    """A view that is refused when its form is sent too often. `rates`: how often, by "ip" or by the name of a field."""

    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method == "POST":
            # Each is counted, whichever refuses: an address must not try one name after the other.
            limited = [
                is_ratelimited(request, group=f"{group}:{name}", key="ip" if name == "ip" else f"post:{name}", rate=rate, method="POST", increment=True)
                for name, rate in rates.items()
                if name == "ip" or request.POST.get(name)
            ]
            if any(limited):
                AuditEvent.write(f"{group}.limited", None, None, request.META.get("REMOTE_ADDR"), name=request.POST.get("login", "")[:150])
                return too_many(request)
        return view(request, *args, **kwargs)

    return guarded
