from __future__ import annotations

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest


def origin(request: HttpRequest) -> str:
    """Under which address this portal is reached, without a trailing slash."""
    configured: str = settings.CONFIG.public_url
    return configured.rstrip("/") or f"{request.scheme}://{request.get_host()}"


def site(request: HttpRequest) -> dict[str, object]:
    """For every template: the portal's addresses and version."""
    try:
        address = origin(request)
    except DisallowedHost:  # a refused Host header must not turn an error page into a second error
        address = ""
    viewer = getattr(request, "viewer", None)
    return {
        "origin": address, "base_url": f"{address}/v1", "version": settings.VERSION, "viewer": viewer, "languages": settings.LANGUAGES,
        "status_page": settings.CONFIG.status_page, "signup": settings.CONFIG.signup, "mails": settings.MAILS,
    }  # fmt: skip
