"""Every vendor that the relay knows, one a file.

A file that is added to this folder is a vendor added: nothing else lists them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Final

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
# Keys of vendors that answer inside the portal.
BUILT_IN: Final = frozenset(vendor.key for vendor in VENDORS.values() if vendor.built_in)


def offered() -> list[Vendor]:
    """The vendors for which a channel can be made, in their order."""
    return [vendor for vendor in VENDORS.values() if vendor.protocol]
