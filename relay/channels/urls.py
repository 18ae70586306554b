"""Checks URLs that people type against server-side request forgery (SSRF).

They are checked when they are saved, and again at every connection (`relay.transport.transport`).
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from portal.lib import net
from relay.billing.webhooks import allowances
from relay.channels.base_urls import complete_base_url
from relay.models import AllowedUpstream
from relay.providers.vendor import Vendor

REMEDY = gettext_noop("A superuser can allow it under “Allowed upstream addresses”.")


def check_typed_url(url: str, schemes: Sequence[str] = ("https", "http"), also: Sequence[net.Allowance] = ()) -> str:
    """Return the URL of an upstream without its trailing slash.

    Raises net.AddressRefused with a sentence for the person who typed it. A host name that does not resolve now is
    accepted, since every connection is checked. `also`: what is about to be allowed beside the list.
    """
    return _check_typed(url, (*AllowedUpstream.allowances(), *also), _(REMEDY), schemes)


def check_webhook_url(url: str) -> str:
    """Return the URL of a user's webhook as `check_typed_url` does, without what channels may use.

    It may have a query, in which some services take their key.
    """
    return _check_typed(url, allowances(), _("Webhooks reach public addresses only."), query=True)


def _check_typed(
    url: str,
    allowed: Sequence[net.Allowance],
    remedy: str,
    schemes: Sequence[str] = ("https", "http"),
    query: bool = False,
) -> str:
    try:
        clean = net.check_url(url, allowed, schemes, query)
        parts = urlsplit(clean)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        if net.parse_address(host) is None:
            _check_resolved(host, port, allowed)
    except net.AddressRefused as reason:
        why = reason.translated(_)
        said = _("%(why)s.") % {"why": why[0].upper() + why[1:]}
        if isinstance(reason, net.NotPublic):
            raise net.NotPublic(f"{said} {remedy}") from None
        raise net.AddressRefused(said) from None
    return clean


def base_url_of(vendor: Vendor, typed: str, also: Sequence[net.Allowance] = ()) -> str:
    """Return what a channel stores as its base URL: what the typed one means, empty for the vendor's own.

    The vendor's own is checked as well, since some are on this machine, such as Ollama's. Raises net.AddressRefused.
    """
    url = typed.strip()
    if vendor.built_in:  # makes no connection
        return url
    if not url and not vendor.base_url:
        reason = _("%(vendor)s has no address of its own: type the base URL of the upstream.")
        if vendor.address_form:
            reason = _("%(vendor)s has another address for every customer. Type yours, which has this form: %(form)s")
        raise net.AddressRefused(reason % {"vendor": _(vendor.label), "form": vendor.address_form})
    if "{" in url or "}" in url:
        reason = _("Put your own values in the place of what stands in braces, such as {region}.")
        raise net.AddressRefused(reason)
    form = urlsplit(vendor.address_form).path
    if "{" in form and url and _path_of(url).strip("/") == "":
        reason = _("The base URL of %(vendor)s says more than the host. It has this form: %(form)s")
        raise net.AddressRefused(reason % {"vendor": _(vendor.label), "form": vendor.address_form})
    clean = check_typed_url(complete_base_url(url, vendor) or vendor.base_url, also=also)
    return "" if clean == vendor.base_url else clean


def _path_of(typed: str) -> str:
    """The path of a typed address, with or without a scheme; what cannot be read is for the check to refuse."""
    try:
        return urlsplit(typed if "://" in typed else f"//{typed}").path
    except ValueError:
        return typed


def allowance_for(vendor: Vendor, typed: str) -> str:
    """Return the entry of the allow-list that lets channels use a typed base URL: its host and port."""
    parts = urlsplit(complete_base_url(typed, vendor) or vendor.base_url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url_refusal(url: str, allowed: Sequence[net.Allowance]) -> str:
    """Return why a stored URL may not be used, empty when it may. Resolves no host name."""
    try:
        net.check_url(url, allowed)
    except net.AddressRefused as reason:
        return reason.translated(_)
    return ""


def _check_resolved(host: str, port: int, allowed: Sequence[net.Allowance]) -> None:
    """Check every address that a host name resolves to. Raises net.AddressRefused."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError:
        return
    for text in found:
        address = net.parse_address(text)
        if address is not None:
            try:
                net.permit(host, address, port, allowed)
            except net.NotPublic as reason:
                said = {"host": host, "address": text, "why": reason.translated(_)}
                raise net.NotPublic(_("%(host)s stands for %(address)s: %(why)s") % said) from None
