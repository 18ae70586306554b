"""Short-lived keys for the portal's own playground: a browser that is signed in presents one in the place of a token's secret.

A key stands for one token until a moment, on /v1, and ends with the token: revoking, disabling or rotating it makes the key worthless.
"""

from __future__ import annotations

from typing import Final

from portal.lib.crypto import Undecryptable
from relay.models.fields import box

PREFIX: Final = "pg_"
SECONDS: Final = 900
_PURPOSE: Final = "playground-key"


def make_pass(digest: str, now: float) -> tuple[str, int]:
    """A key for the token with this digest, and when it ends, in seconds since 1970."""
    until = int(now) + SECONDS
    sealed = box(_PURPOSE).seal(f"{until}:{digest}")
    return PREFIX + sealed.partition(":")[2].rstrip("="), until


def digest_in(presented: str, now: float) -> str:
    """The digest of the token that a key stands for, empty when it is no key of ours or has ended."""
    sealed = presented.removeprefix(PREFIX)
    try:
        until, _, digest = box(_PURPOSE).open("v1:" + sealed + "=" * (-len(sealed) % 4)).partition(":")
    except (Undecryptable, ValueError):
        return ""
    return digest if int(until) > now else ""
