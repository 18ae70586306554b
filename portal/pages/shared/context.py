from __future__ import annotations

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest


def site(request: HttpRequest) -> dict[str, object]:
    """For every template: the portal's addresses and version."""
    try:
        address = settings.CONFIG.origin(request)
    except DisallowedHost:  # a refused Host header must not turn an error page into a second error
        address = ""
    viewer = getattr(request, "viewer", None)
    return {
        "origin": address, "base_url": f"{address}/v1", "version": settings.VERSION, "viewer": viewer, "languages": settings.LANGUAGES,
        "status_page": settings.CONFIG.status_page, "signup": settings.CONFIG.signup, "mails": settings.MAILS,
    }  # fmt: skip
