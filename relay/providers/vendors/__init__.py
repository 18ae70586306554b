"""Every vendor that the relay knows, one a file.

A file that is added to this folder is a vendor added: nothing else lists them.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from portal.lib.texts import gettext_noop
from relay.providers.credentials.static import StaticKey
from relay.providers.vendor import Vendor


def discover(package: str, folders: Iterable[str]) -> dict[str, Vendor]:
    """The vendors whose files are in the folders of a package, by key, in their order.

    Raises TypeError for a file that has no `VENDOR`, ValueError for one that is named otherwise than its vendor.
    """
    found: list[Vendor] = []
    for file in pkgutil.iter_modules(folders):
        vendor: object = getattr(importlib.import_module(f"{package}.{file.name}"), "VENDOR", None)
        if not isinstance(vendor, Vendor):
            raise TypeError(f"{package}.{file.name} must have a VENDOR, which is a Vendor")
        if vendor.key != file.name:  # so that no copied file takes another vendor's place
            raise ValueError(f"{package}.{file.name} describes the vendor “{vendor.key}”: name the file for it")
        found.append(vendor)
    return {vendor.key: vendor for vendor in sorted(found, key=lambda vendor: (vendor.position, vendor.key))}


VENDORS: Final = discover(__name__, __path__)
# Hosts at which vendors serve everybody, and the domains above them, with their documentation: no secret, whoever is
# asked.
PUBLIC_HOSTS: Final = frozenset(
    name
    for vendor in VENDORS.values()
    if vendor.base_url.startswith("https:") and (host := urlsplit(vendor.base_url).hostname)
    for name in (host, host.partition(".")[2])
    if "." in name
)
# Keys of vendors that answer inside the portal.
BUILT_IN: Final = frozenset(vendor.key for vendor in VENDORS.values() if vendor.built_in)
# The vendor that serves people by their own plans.
PLAN_VENDOR: Final = next(vendor for vendor in VENDORS.values() if vendor.plans)
# Keys of vendors whose channels belong to one person each.
PRIVATE: Final = frozenset(vendor.key for vendor in VENDORS.values() if vendor.plans)
# Keys of vendors whose requests are signed one by one, or whose streams are framed in another way than as events.
WRAPPED: Final = frozenset(
    vendor.key for vendor in VENDORS.values() if vendor.framed or not isinstance(vendor.credentials, StaticKey)
)


# The groups of vendors in forms, each with the position that it ends before.
_GROUPS: Final = (
    (20, ""),
    (300, gettext_noop("Makers of models")),
    (400, gettext_noop("Clouds")),
    (500, gettext_noop("Hosts and resellers of models")),
    (900, gettext_noop("Others")),
    (math.inf, gettext_noop("Your own servers, and other relays")),
)


def offered() -> list[Vendor]:
    """The vendors for which a channel can be made, in their order."""
    return [vendor for vendor in VENDORS.values() if vendor.protocol and not vendor.plans]


def grouped() -> list[tuple[str, list[Vendor]]]:
    """The same by group, as forms show them. The titles are to be translated; empty: the vendors stand alone."""
    found: dict[str, list[Vendor]] = {}
    for vendor in offered():
        title = next(title for end, title in _GROUPS if vendor.position < end)
        found.setdefault(title, []).append(vendor)
    return list(found.items())
