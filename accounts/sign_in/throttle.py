"""Limits how often forms such as sign-in may be sent. Counted over all workers with Redis, otherwise by each worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django_ratelimit.core import is_ratelimited

from accounts.models import AuditEvent

View = Callable[..., HttpResponseBase]


def too_many_attempts(request: HttpRequest) -> HttpResponse:
    """Return the page for a visitor who tried too often, with status 429."""
    response = render(request, "429.html", status=429)
    response["Retry-After"] = "300"
    return response


def throttled(view: View, group: str, **rates: str) -> View:
    """Wrap a view so that its form cannot be sent too often.

    `rates`: limits of django-ratelimit such as "20/5m", by "ip" or by the name of a field. `group` names the counters.
    """

    def limited_view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method == "POST":
            # All counters grow, whichever refuses, so that an address cannot try one name after the other.
            limited = [
                is_ratelimited(
                    request,
                    group=f"{group}:{name}",
                    key="ip" if name == "ip" else f"post:{name}",
                    rate=rate,
                    method="POST",
                    increment=True,
                )
                for name, rate in rates.items()
                if name == "ip" or request.POST.get(name)
            ]
            if any(limited):
                AuditEvent.write(
                    f"{group}.limited",
                    None,
                    None,
                    request.META.get("REMOTE_ADDR"),
                    name=request.POST.get("login", "")[:150],
                )
                return too_many_attempts(request)
        return view(request, *args, **kwargs)

    return limited_view
