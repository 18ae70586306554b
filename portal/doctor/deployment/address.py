"""Checks of the public address: its name, its port, its certificate, and that this portal answers there."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.config import Config
from portal.doctor.deployment import question
from portal.doctor.report import Check, told

OURS: Final = "AIRelays Portal"
SECONDS: Final = 10.0  # for the connection, and for each part of an answer
_RENEW_DAYS: Final = 10  # before its end a certificate is renewed by then: Let's Encrypt's are 30 days before it
_DAY: Final = 86_400
_GATEWAY: Final = frozenset((502, 503, 504))
FORGED: Final = "192.0.2.77"  # an address for documentation, which nobody has


@dataclass(slots=True)
class Public:
    """The public address, and what the portal saw of a request that came by it."""

    url: str
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)
    seen: dict[str, Any] | None = None  # as of `question.seen`; None: this portal was not reached

    def client(self, seconds: float = SECONDS) -> httpx.Client:
        """A client that follows no redirect and uses no proxy of the environment."""
        return httpx.Client(verify=self.tls, timeout=seconds, trust_env=False)

    def question(self, purpose: str) -> str:
        return f"{self.url}{question.PATH}?{question.query(purpose)}"


def public_address(config: Config, public: Public) -> Iterator[Check]:
    """Ends early where the rest of the way cannot be looked at."""
    parts = urlsplit(config.public_url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    data: dict[str, Any] = {"host": host, "port": port}
    fault = _unreachable(host, port, data)
    if fault is not None:
        yield fault
        return
    if parts.scheme == "https":
        check = _certificate(public.tls, host, port)
        yield check
        if check.status == "fail":
            return
    yield _asked(public, data)


def not_set() -> Check:
    """What is left out where no address is named."""
    text = _(
        "Not checked: AIRELAYS_PUBLIC_URL is not set. The certificate, the proxy, streams, websockets and uploads were "
        "not looked at."
    )
    step = _("Set AIRELAYS_PUBLIC_URL to the address that users type, such as https://ai.example.org, and check again.")
    return Check("public_address", "skip", text, (step,))


def _unreachable(host: str, port: int, data: dict[str, Any]) -> Check | None:
    """Why no connection is made; None if one is."""
    where = {"host": host, "port": port}
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of the name is empty, or too long
        text = _("The name %(host)s of AIRELAYS_PUBLIC_URL cannot be resolved: %(why)s.") % {
            **where,
            "why": told(error),
        }
        step = _(
            "Add the name to your DNS with the address of the machine that takes connections, or correct the name."
        )
        return Check("public_address", "fail", text, (step,), data)
    data["addresses"] = sorted({str(one[4][0]) for one in found})
    try:
        with socket.create_connection((host, port), SECONDS):
            return None
    except OSError as error:
        text = _("%(host)s:%(port)s cannot be reached from this machine: %(why)s.") % {**where, "why": told(error)}
        steps = (
            _("Start what stands in front of the portal, and open port %(port)s in the firewall.") % where,
            _("If other machines reach it: some routers do not connect a network to its own public address."),
        )
        return Check("public_address", "fail", text, steps, data)


def _certificate(tls: ssl.SSLContext, host: str, port: int) -> Check:
    renew = _("Renew the certificate, and let the proxy load it: with Caddy or certbot that is done by itself.")
    try:
        with (
            socket.create_connection((host, port), SECONDS) as plain,
            tls.wrap_socket(plain, server_hostname=host) as it,
        ):
            ends = ssl.cert_time_to_seconds(str((it.getpeercert() or {})["notAfter"]))
    except ssl.SSLCertVerificationError as error:
        text = _("The certificate of %(host)s is refused: %(why)s.") % {"host": host, "why": error.verify_message}
        own = _("If an authority of your own has signed it, name its file in SSL_CERT_FILE for this command.")
        return Check("certificate", "fail", text, (renew, own))
    except (OSError, KeyError) as error:
        text = _("%(host)s:%(port)s does not speak TLS: %(why)s.") % {"host": host, "port": port, "why": told(error)}
        step = _("Let the proxy serve https there, or correct AIRELAYS_PUBLIC_URL.")
        return Check("certificate", "fail", text, (step,))
    days = int((ends - time.time()) // _DAY)
    text = ngettext(
        "The certificate of %(host)s is valid for %(n)d more day.",
        "The certificate of %(host)s is valid for %(n)d more days.",
        days,
    ) % {"host": host, "n": days}
    if days < _RENEW_DAYS:
        return Check("certificate", "warn", text, (renew,), {"days": days})
    return Check("certificate", "pass", text, data={"days": days})


def _asked(public: Public, data: dict[str, Any]) -> Check:
    """Ask the portal what it sees, with an address of a client that is made up."""
    shown = {"url": public.url}
    try:
        with public.client() as client:
            answer = client.get(public.question("seen"), headers={"x-forwarded-for": FORGED})
    except httpx.HTTPError as error:
        text = _("%(url)s does not answer: %(why)s.") % {**shown, "why": told(error)}
        return Check("public_address", "fail", text, (_("Look into the log of what stands in front."),), data)
    data["status"] = answer.status_code
    body: dict[str, Any] = {}
    with suppress(ValueError):
        body = found if isinstance(found := answer.json(), dict) else {}
    if isinstance(body.get("hosts"), list):
        public.seen = body
        return Check("public_address", "pass", _("The portal answers at %(url)s.") % shown, data=data)
    return Check("public_address", "fail", *_another(answer, body, shown), data)


def _another(answer: httpx.Response, body: dict[str, Any], shown: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """What answers instead of this portal, and what to do."""
    shown = {**shown, "status": answer.status_code}
    if answer.status_code in _GATEWAY:
        text = _("The proxy at %(url)s does not reach the portal: it answers with %(status)d.")
        return text % shown, (_("Start the portal, and let the proxy forward to AIRELAYS_HOST and AIRELAYS_PORT."),)
    if answer.is_redirect:
        target = urlsplit(answer.headers.get("location", ""))
        text = _("%(url)s redirects to %(target)s.")
        shown["target"] = f"{target.scheme}://{target.netloc}" if target.netloc else target.path[:100]
        step = _("Set AIRELAYS_PUBLIC_URL to the address at which the portal answers, or take the redirect away.")
        return text % shown, (step,)
    if body.get("name") == OURS:
        text = _("The portal at %(url)s does not have the keys of this installation, or is of another version.")
        step = _("Give all hosts the same AIRELAYS_SECRET_KEY, AIRELAYS_ENCRYPTION_KEYS and AIRELAYS_TOKEN_KEY.")
        return text % shown, (step, _("Run this command on the machine, and as the user, that runs the portal."))
    if answer.status_code == 403 and "network_scope" in answer.text[:1000]:
        text = _("The portal refuses requests that come by %(url)s: AIRELAYS_NETWORK_SCOPE does not let them in.")
        return text % shown, (_("Set AIRELAYS_NETWORK_SCOPE, or AIRELAYS_TRUSTED_PROXIES if a proxy is in between."),)
    text = _("Another program answers at %(url)s, with %(status)d.")
    step = _("Let the proxy forward this name, with every path, to AIRELAYS_HOST and AIRELAYS_PORT.")
    return text % shown, (step,)
