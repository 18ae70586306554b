"""Requests without a token, where the relay is open (REQUIRE_BEARER_AUTH=false): which of them are answered.

They come from this machine, not through a proxy, and from no web page of another site. A page can send requests to
programs on its reader's machine without asking (text/plain needs no preflight), or make its own name stand for
127.0.0.1 (DNS rebinding). The first is seen by Origin and Sec-Fetch-Site, the second by Host.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

from django.conf import settings

from accounts.models import Change
from portal.lib import net
from relay.errors import Forbidden
from relay.gateway.snapshot.cache import snapshot_cache
from relay.tokens.open_relay import open_relay_digest, open_relay_token

# By which proxies and tunnels show that a request came through them.
_OF_PROXIES: Final = frozenset((
    b"forwarded", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"via", b"x-cluster-client-ip", b"x-proxyuser-ip",
    b"fastly-client-ip", b"fly-client-ip", b"cdn-loop", b"x-azure-clientip", b"x-appengine-user-ip",
    b"proxy-client-ip", b"wl-proxy-client-ip", b"x-envoy-external-address",
))  # fmt: skip
_BEGIN_OF_PROXIES: Final = (b"x-forwarded", b"x-original-", b"cf-connecting-", b"cf-ray", b"cf-visitor", b"tailscale-")
_SHOWN: Final = 100  # characters of a header in a message


class OpenRelay:
    """Which token stands for requests without one."""

    digest = ""  # of the token; empty: tokens are needed

    def read(self) -> None:
        """Read the token, which is made where there never was one. Synchronous.

        Called with each change of the configuration, too.
        """
        if settings.CONFIG.require_bearer_auth:
            self.digest = ""
            return
        token = open_relay_token()
        self.digest = token.digest if token is not None else ""

    def reread(self) -> None:
        """Read the token after a change of one: it may have been revoked, or the relay opened again."""
        if not settings.CONFIG.require_bearer_auth:
            self.digest = open_relay_digest()


open_relay: Final = OpenRelay()
snapshot_cache.on_reload(open_relay.read)
snapshot_cache.on(Change.TOKEN, lambda _key: open_relay.reread())


def comes_from_here(ip: str, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request may do without a token: it is this machine's own, or others may, too.

    `ip`: of the client, behind trusted proxies as they say. What came through a proxy is nobody's on this machine,
    whatever address it has.
    """
    if settings.CONFIG.open_relay_on_network:
        return True
    address = net.parse_address(ip)
    if address is None or not address.is_loopback or not _OF_PROXIES.isdisjoint(headers):
        return False
    return not any(name.startswith(_BEGIN_OF_PROXIES) for name in headers)


def check_site(headers: Mapping[bytes, bytes]) -> None:
    """Raise Forbidden for a request without a token that a web page may have sent without its reader's knowledge."""
    host = headers.get(b"host", b"").decode("latin-1").strip().lower()
    if _name_of(host) not in _own_names(settings.CONFIG.public_url, settings.CONFIG.open_relay_on_network) and not (
        net.is_loopback_name(_name_of(host))
    ):
        raise Forbidden(
            f"Without a token, this relay answers under the names of its own machine only, not as “{host[:_SHOWN]}”. "
            "Use http://127.0.0.1 and its port as base URL, set AIRELAYS_PUBLIC_URL to the address that you use, or "
            "send a token.",
            code="open_relay_host",
        )
    origin = headers.get(b"origin", b"").decode("latin-1").strip()
    site = headers.get(b"sec-fetch-site", b"").decode("latin-1").strip().lower()
    if origin in settings.CONFIG.cors_origins and origin != "*":
        return
    if (origin and not _is_own(origin.lower(), host)) or (not origin and site in {"cross-site", "same-site"}):
        raise Forbidden(
            f"This request comes from a web page of another origin{f' ({origin[:_SHOWN]})' if origin else ''}, and "
            "without a token this relay answers none. If the page is yours, name its origin in AIRELAYS_CORS_ORIGINS, "
            "or send a token.",
            code="open_relay_origin",
        )


def _is_own(origin: str, host: str) -> bool:
    """Whether an origin is the relay's own: the address that the request was sent to, or the configured one."""
    return origin in {f"http://{host}", f"https://{host}"} or origin == settings.CONFIG.public_url.lower()


def _name_of(host: str) -> str:
    """The name in a Host header without its port; empty if it is none."""
    if any(character in host for character in "@/?#\\%"):
        return ""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


@lru_cache(maxsize=8)
def _own_names(public_url: str, on_network: bool) -> frozenset[str]:
    """Names under which an open relay answers beside those of loopback. Patterns of names are none."""
    found = {(urlsplit(public_url).hostname or "").rstrip(".")}
    if on_network:
        found |= {name.strip("[]").lower() for name in settings.ALLOWED_HOSTS if not name.startswith((".", "*"))}
    return frozenset(found - {""})
