from __future__ import annotations

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest


def site(request: HttpRequest) -> dict[str, object]:
    """Context processor: addresses, version and settings of the portal that all templates use."""
    try:
        address = settings.CONFIG.origin(request)
    except DisallowedHost:  # the page of this error must not raise it again
        address = ""
    viewer = getattr(request, "viewer", None)
    return {
        "origin": address,
        "base_url": f"{address}/v1",
        "version": settings.VERSION,
        "viewer": viewer,
        "languages": settings.LANGUAGES,
        "status_page": settings.CONFIG.status_page,
        "signup": settings.CONFIG.signup,
        "mails": settings.MAILS,
    }
