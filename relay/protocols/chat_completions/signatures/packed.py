"""What a vendor wants back in the next request, as the opaque signature of a thought. Pure.

It is given to the same vendor only: others refuse members that they do not know.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from portal.lib.json import Json, decode_object, encode, text_of
from relay.protocols.characters import clean

MARK: Final = "airelays-reasoning."
HUB: Final = "hub"  # the vendor of signatures that another API's upstream made, which are packed for a client


def packed(members: Json, vendor: str) -> str:
    """Members for a vendor as an opaque signature; `returned_members` reads them again."""
    return MARK + base64.b64encode(encode(clean({"vendor": vendor, **members}))).decode()


def is_packed(signature: object) -> bool:
    """Whether the portal made this signature, so that only `returned_members` can read it."""
    return isinstance(signature, str) and signature.startswith(MARK)


def returned_members(signature: object, vendor: str) -> Json:
    """What a signature packs for a vendor, as the members of `Returned`; empty for any other signature or vendor."""
    found = unpacked(signature)
    return found if text_of(found, "vendor") == vendor else {}


def unpacked(signature: object) -> Json:
    """What a signature packs, with its `vendor`; empty for one that the portal did not make."""
    if not isinstance(signature, str) or not signature.startswith(MARK):
        return {}
    try:
        return decode_object(base64.b64decode(signature[len(MARK) :], validate=True)) or {}
    except (binascii.Error, ValueError):
        return {}
