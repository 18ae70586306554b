from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest

from accounts.forms_once import new_key
from accounts.models import User
from portal.lib import net
from relay.channels.chatgpt_accounts.places import may_have


def _may_use_passkeys(request: HttpRequest) -> bool:
    """Whether browsers offer passkeys at this address: one with a name, over TLS or on this machine."""
    try:
        host = urlsplit(f"//{request.get_host()}").hostname or ""
    except (DisallowedHost, ValueError):
        return False
    local = host == "localhost" or host.endswith(".localhost")
    return net.parse_address(host) is None and (request.is_secure() or local)


def _may_have_plan(request: HttpRequest) -> bool:
    """Whether the reader may use a plan of their own here."""
    user = getattr(request, "user", None)
    return isinstance(user, User) and may_have(user)


def site(request: HttpRequest) -> dict[str, object]:
    """Context processor: addresses, version and settings of the portal that all templates use."""
    try:
        address = settings.CONFIG.origin(request)
    except DisallowedHost:  # the page of this error must not raise it again
        address = ""
    viewer = getattr(request, "viewer", None)
    return {
        "form_key": new_key,  # called by the template each time, so that each form of a page has its own
        "origin": address,
        "base_url": f"{address}/v1",
        "version": settings.VERSION,
        "viewer": viewer,
        "languages": settings.LANGUAGES,
        "status_page": settings.CONFIG.status_page,
        "signup": settings.CONFIG.signup,
        "mails": settings.MAILS,
        "may_have_plan": lambda: _may_have_plan(request),
        "passkeys": _may_use_passkeys(request),
    }
