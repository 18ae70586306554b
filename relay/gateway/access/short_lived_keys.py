"""Short-lived keys that stand for a token: they expire, and end when the token is revoked, disabled or rotated.

The portal's playground sends one to /v1 in place of a token's secret; browsers send client secrets to /v1/realtime.
"""

from __future__ import annotations

from typing import Final

from portal.lib.crypto import Undecryptable
from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode_object, encode, object_of, text_of
from relay.errors import InvalidRequest, InvalidToken
from relay.gateway.access.authorization import check_address
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller, CallerState
from relay.models.fields import box

PLAYGROUND_PREFIX: Final = "pg_"
PLAYGROUND_SECONDS: Final = 900
_PURPOSE: Final = "playground-key"
CLIENT_SECRET_PREFIX: Final = "ek_"  # noqa: S105  # as OpenAI's client secrets of realtime begin
_SECRET_PURPOSE: Final = "realtime-client-secret"  # noqa: S105  # a label, not a secret
_SECRET_SECONDS: Final = (10, 7200, 600)  # minimum, maximum, default


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


def make_client_secret(caller: Caller, body: Json, now: float) -> Json:
    """A client secret that stands for the caller's token, bound to a session and to /v1/realtime.

    Raises InvalidRequest.
    """
    session = object_of(body, "session")
    after = object_of(body, "expires_after")
    seconds = after.get("seconds", _SECRET_SECONDS[2])
    if not isinstance(seconds, int) or not _SECRET_SECONDS[0] <= seconds <= _SECRET_SECONDS[1]:
        raise InvalidRequest(
            f"The field “expires_after.seconds” must be between {_SECRET_SECONDS[0]} and {_SECRET_SECONDS[1]}.",
            param="expires_after",
        )
    expires = int(now) + seconds
    sealed = box(_SECRET_PURPOSE).seal(encode({"digest": caller.digest, "until": expires, "session": session}).decode())
    shown: Json = {"type": "realtime", "object": "realtime.session", "id": f"sess_{time_ordered_hex()}", **session}
    return {
        "value": CLIENT_SECRET_PREFIX + sealed.partition(":")[2].rstrip("="),
        "expires_at": expires,
        "session": shown,
    }


def make_session(caller: Caller, body: Json, now: float) -> Json:
    """A client secret in OpenAI's older form: the session with the secret inside. Raises InvalidRequest."""
    found = make_client_secret(caller, {"session": body}, now)
    return {
        **object_of(found, "session"),
        "client_secret": {"value": found["value"], "expires_at": found["expires_at"]},
    }


async def caller_of_client_secret(secret: str, now: float, ip: str) -> tuple[Caller, Json]:
    """The caller and the session of a client secret. Raises InvalidToken, Forbidden, RelayUnavailable."""
    sealed = secret.removeprefix(CLIENT_SECRET_PREFIX)
    try:
        found = decode_object(box(_SECRET_PURPOSE).open("v1:" + sealed + "=" * (-len(sealed) % 4))) or {}
    except (Undecryptable, ValueError):
        found = {}
    until = found.get("until")
    caller = await snapshot_cache.caller(text_of(found, "digest")) if isinstance(until, int) and until > now else None
    if caller is None or caller.state(now) is not CallerState.ACTIVE:
        raise InvalidToken(
            "The client secret is not valid, or has expired. Make a new one with POST /v1/realtime/client_secrets."
        )
    check_address(caller, ip)
    return caller, object_of(found, "session")
