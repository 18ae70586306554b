"""Where the plan of a user is signed in to and asked, by the settings."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from dataclasses import dataclass
from typing import Final

from django.conf import settings

from accounts.models import User
from portal.lib import net
from relay.models import AllowedUpstream, ChatGPTAccount
from relay.providers.plans.shapes import Shape
from relay.providers.vendors import PLAN_VENDOR

APP_NAME: Final = "AIRelays Portal"
_VERSIONED: Final = "0.153.4"


@dataclass(frozen=True, slots=True)
class Place:
    """A form of sign-in and requests, with its addresses."""

    shape: Shape
    issuer: str
    base_url: str
    version: str  # of the client that the list of models is asked for; empty: none is named


def shape_of(key: str) -> Shape:
    """The form by its name; the supported one for a name that is not known any more."""
    return next((shape for shape in PLAN_VENDOR.plans if shape.key == key), PLAN_VENDOR.plans[0])


def place_of(key: str = "") -> Place:
    """The place of a form by its name; empty: that of the setting."""
    config = settings.CONFIG
    shape = shape_of(key or config.plan_shape)
    version = config.client_version or (_VERSIONED if shape.versioned else "")
    return Place(shape, config.issuer_base_url or shape.issuer, config.upstream_base_url or shape.base_url, version)


def may_have(user: User) -> bool:
    """Whether a user may use their own plan here."""
    allowed = settings.CONFIG.plan_users
    return user.is_active and (allowed == "everyone" or (allowed == "superusers" and user.is_superuser))


def moved(account: ChatGPTAccount) -> bool:
    """Whether the tokens of an account were given for other addresses than the settings name now."""
    place = place_of(account.shape)
    return (net.origin(account.issuer), net.origin(account.base_url)) != (
        net.origin(place.issuer),
        net.origin(place.base_url),
    )


def refusal(place: Place) -> str:
    """Why one of the addresses may not be used, empty when they may. Resolves no names."""
    allowed = AllowedUpstream.allowances()
    try:
        for address in (place.issuer, place.base_url):
            net.check_url(address, allowed)
    except net.AddressRefused as reason:
        return str(reason)
    return ""


def host_id() -> str:
    """The id of this installation, the same on all its hosts, by which the issuer knows it again."""
    digest = hmac.digest(settings.TOKEN_KEY, b"id of the installation at issuers", hashlib.sha256)
    return uuid.UUID(bytes=digest[:16], version=4).urn


def app_hints() -> dict[str, str]:
    """What names this app at the first sign-in."""
    return {"agent_name_hint": APP_NAME, "ext_agent_host_id": host_id()}
