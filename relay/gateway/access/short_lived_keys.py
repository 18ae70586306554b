"""Short-lived keys that stand for a token: they expire, and end when the token is revoked, disabled or rotated.

The portal's playground sends one to /v1 in place of a token's secret.
"""

from __future__ import annotations

from typing import Final

from portal.lib.crypto import Undecryptable
from relay.models.fields import box

PLAYGROUND_PREFIX: Final = "pg_"
PLAYGROUND_SECONDS: Final = 900
_PURPOSE: Final = "playground-key"


def make_playground_key(digest: str, now: float) -> tuple[str, int]:
    """A key for the token with this digest, and when it expires, in seconds since 1970."""
    until = int(now) + PLAYGROUND_SECONDS
    sealed = box(_PURPOSE).seal(f"{until}:{digest}")
    return PLAYGROUND_PREFIX + sealed.partition(":")[2].rstrip("="), until


def digest_of_key(presented: str, now: float) -> str:
    """The digest of the token that a playground key stands for; empty when the key is invalid or has expired."""
    sealed = presented.removeprefix(PLAYGROUND_PREFIX)
    try:
        until, _, digest = box(_PURPOSE).open("v1:" + sealed + "=" * (-len(sealed) % 4)).partition(":")
    except (Undecryptable, ValueError):
        return ""
    return digest if int(until) > now else ""
