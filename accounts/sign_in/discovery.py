"""The configuration that an OpenID Connect server publishes: OpenID Connect Discovery 1.0, 4."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from django.utils.translation import gettext as _

from accounts.sign_in.outbound import CheckedSession, in_time, permitted_address
from accounts.sign_in.provider_faults import ProviderFault
from portal import limits
from portal.lib import net

_PATH: Final = "/.well-known/openid-configuration"
_MEMBERS: Final = ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri")
_LATER: Final = frozenset({408, 425, 429})  # and from 500 on: the server is there, and may answer another time


class ProviderAway(ProviderFault):
    """A sign-in provider does not answer now; that says nothing of what it is."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """What came of asking a server for its configuration."""

    server_url: str
    url: str  # that was asked
    issuer: str = ""  # empty: there is a fault
    fault: str = ""  # a sentence
    away: bool = False  # the server does not answer now; otherwise it is not one of OpenID Connect, or not permitted


def configuration_url(server_url: str) -> str:
    """Return the address of a server's configuration, which may be typed itself."""
    return server_url if "/.well-known/" in server_url else server_url.rstrip("/") + _PATH


def configuration_of(server_url: str) -> dict[str, Any]:
    """Return the configuration of a server. Raises ProviderFault, requests.RequestException."""
    found = get_object(configuration_url(server_url), _("its configuration"))
    for member in _MEMBERS:
        if not isinstance(found.get(member), str):
            raise ProviderFault(_("its configuration has no %(member)s") % {"member": member})
    return found


def get_object(url: str, what: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the JSON object at a URL of a provider. `what`: its name, for errors.

    Raises ProviderFault, requests.RequestException.
    """
    try:
        with CheckedSession() as session:
            answer = session.get(url, headers=headers)
            answer.raise_for_status()
            found = answer.json()
    except requests.JSONDecodeError:
        raise ProviderFault(_("%(what)s cannot be read") % {"what": what}) from None
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        kind = ProviderAway if status >= 500 or status in _LATER else ProviderFault
        raise kind(_("it answered %(status)d for %(what)s") % {"status": status, "what": what}) from None
    if not isinstance(found, dict):
        raise ProviderFault(_("%(what)s cannot be read") % {"what": what})
    return found


def discover(server_url: str) -> Discovery:
    """Ask a server for its configuration, and say what came of it. May take as long as two timeouts."""
    url = configuration_url(server_url)
    try:
        _check_host(url)
        return Discovery(server_url, url, issuer=str(configuration_of(server_url)["issuer"]))
    except (ProviderFault, requests.RequestException) as error:
        text, away = _why(error)
        fault = _("%(why)s.") % {"why": text[0].upper() + text[1:]}
        return Discovery(server_url, url, fault=fault, away=away)


def _check_host(url: str) -> None:
    """Tell a name that is not known from an address that is not permitted; connecting finds both again."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        in_time(host, partial(permitted_address, host, parts.port or (443 if parts.scheme == "https" else 80)))
    except net.AddressRefused as reason:
        raise ProviderFault(reason.translated(_)) from None
    except requests.Timeout:
        raise
    except (OSError, UnicodeError):
        raise ProviderAway(_("the name %(host)s is not known") % {"host": host}) from None


def _why(error: Exception) -> tuple[str, bool]:
    if isinstance(error, ProviderFault):
        return str(error), isinstance(error, ProviderAway)
    if isinstance(error, requests.Timeout):
        return _("it did not answer within %(n)d seconds") % {"n": limits.PROVIDER_SECONDS}, True
    if isinstance(error, requests.exceptions.SSLError):
        return _("its certificate cannot be verified"), True
    if isinstance(error, requests.ConnectionError):
        return _("it cannot be reached"), True
    return _("%(what)s cannot be read") % {"what": _("its configuration")}, False
