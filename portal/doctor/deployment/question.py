"""The signed question by which the check of a deployment asks the portal, by its public address, what arrives there."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qs

from django.conf import settings
from django.core.signing import BadSignature, TimestampSigner

from portal.lib import net

PATH: Final = "/healthz"
PARAMETER: Final = "deployment"
PARTS: Final = 3  # of the answer that is streamed
PAUSE_SECONDS: Final = 0.7  # between them
_SECONDS: Final = 300
_signer: Final = TimestampSigner(salt="portal.doctor.deployment")


def query(purpose: str) -> str:
    """The query string of a question. `purpose`: `seen`, `stream`, `upload` or `socket`."""
    return f"{PARAMETER}={_signer.sign(purpose)}"


def purpose_of(query_string: bytes) -> str:
    """What a query string asks for; empty unless it was signed with the secret key of this installation lately."""
    if not query_string.startswith(PARAMETER.encode() + b"="):
        return ""
    asked = parse_qs(query_string.decode("latin-1")).get(PARAMETER, [""])[0]
    try:
        return _signer.unsign(asked, max_age=_SECONDS)
    except BadSignature:
        return ""


def seen(scope: Any) -> dict[str, Any]:
    """What the portal sees of a request (an ASGI scope), as JSON: of whom, with which headers, who the client is."""
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1")[:1000])
    peer = (scope.get("client") or ("", 0))[0]
    address = net.parse_address(peer)
    forwarded = ",".join(headers.get("x-forwarded-for", ()))
    return {
        "peer": peer,
        "trusted": address is not None and net.inside(address, settings.TRUSTED_PROXIES),
        "client": net.client_ip(peer, forwarded, settings.TRUSTED_PROXIES),
        "forwarded_for": forwarded,
        "forwarded_proto": ",".join(headers.get("x-forwarded-proto", ())),
        "proxied": any(name in headers for name in ("x-real-ip", "via", "forwarded", "x-forwarded-host")),
        "host": ",".join(headers.get("host", ())),
        "hosts": settings.ALLOWED_HOSTS,
    }
