"""When an open relay, which answers on its own machine without a token, may not start."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from portal.installation.settings.listening import Listening
from portal.lib.net import is_loopback_name

NO_AUTH: Final = {"AIRELAYS_REQUIRE_BEARER_AUTH": "false"}
"""What `--no-auth` sets in the environment: worker processes read their settings from there, too."""


def why_not_open(settings: Listening, host: str, public_url: str, proxies: bool) -> str:
    """Why an open relay must not listen on a host, in one line; empty if it may.

    A public address or a proxy means that requests of others arrive from this machine.
    """
    if settings.require_bearer_auth or settings.open_relay_on_network:
        return ""
    name = urlsplit(public_url).hostname or ""
    if not is_loopback_name(host):
        reason = f"it would listen on {host}"
    elif name and not is_loopback_name(name):
        reason = f"AIRELAYS_PUBLIC_URL leads others to it ({name})"
    elif proxies:
        reason = "AIRELAYS_TRUSTED_PROXIES says that a proxy leads others to it"
    else:
        return ""
    return (
        f"an open relay (AIRELAYS_REQUIRE_BEARER_AUTH=false) answers this machine only, and {reason}. Require tokens "
        "again, or set AIRELAYS_OPEN_RELAY_ON_NETWORK=true to let everybody who reaches it spend your upstreams' money"
    )
