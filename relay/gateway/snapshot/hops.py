"""The relays that a request has passed through, so that one that comes back is seen, and refused.

A portal writes its own id behind those that it finds, in requests to servers that may be relays. Ids say nothing: they
are digests of the installation's secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from functools import cache
from typing import Final

from django.conf import settings

HEADER: Final = "x-airelays-via"
MOST: Final = 5  # relays before this one; chains of sense are shorter
_LONGEST: Final = 200  # bytes of the header that are read
_ID: Final = re.compile(r"[0-9a-f]{12}")


@cache
def _digest(secret: str) -> str:
    return hmac.new(secret.encode(), b"airelays relay hop", hashlib.sha256).hexdigest()[:12]


def own_id() -> str:
    """The id of this installation, which all of its workers share."""
    return _digest(settings.SECRET_KEY)


def passed(value: bytes) -> list[str]:
    """The ids in a header, one more than may be at most. What is none is left out."""
    return _ID.findall(value[:_LONGEST].decode("latin-1"))[: MOST + 1]


def passed_on(value: bytes) -> str:
    """The header of a request that came with one."""
    return ", ".join([*passed(value), own_id()])


def refusal(value: bytes) -> str:
    """Why a request with this header is refused, empty when it is served."""
    ids = passed(value)
    if own_id() in ids:
        return (
            "This request has come back to a portal that it had passed through: a channel of it leads in a circle. Its "
            "administrator takes the model off that channel, or points the channel at the vendor itself."
        )
    if len(ids) > MOST:
        return (
            f"This request has passed through more than {MOST} relays, so it probably goes in a circle. Point a "
            "channel on its way at the vendor itself."
        )
    return ""
