"""Authenticates requests by their token, and checks the address they come from."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from accounts.models import Change
from accounts.models.staff_key import PREFIX as STAFF_KEY
from portal.lib import clock, net
from portal.lib.texts import whole_number
from relay.errors import AddressBlocked, Forbidden, InvalidToken, RelayUnavailable, TokenUnusable
from relay.gateway.access.address_block import address_block
from relay.gateway.access.authorization import check_address
from relay.gateway.access.open_relay import check_site, comes_from_here, open_relay
from relay.gateway.access.short_lived_keys import PLAYGROUND_PREFIX, digest_of_key
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.snapshot import load
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller, CallerState
from relay.models.token import TOKEN_LENGTH, digest_of

# Takes the names of the tokens that a request was known by, where somebody wants to know: the access log.
callers_seen: Final[ContextVar[list[Caller] | None]] = ContextVar("callers_seen", default=None)
# The exchange of a request that has a line in the access log, and its last state; None: it has none.
exchanges_seen: Final[ContextVar[list[tuple[Exchange, dict[str, Any]]] | None]] = ContextVar("exchanges", default=None)
_REFUSAL: Final = (
    "The token is missing or not valid here. Send “Authorization: Bearer sk-…” with a token of this portal; you can "
    "see yours after signing in with a browser."
)
_OF_STAFF: Final = (
    "This looks like a staff key, which scripts use at /api/v1. Send a token of this portal here; you can see yours "
    "after signing in with a browser."
)
_UNUSABLE: Final = {
    CallerState.EXPIRED: (
        "token_expired",
        "This token has expired. Create a new one on the portal, or ask its administrator to extend it.",
    ),
    CallerState.TOKEN_DISABLED: (
        "token_disabled",
        "This token is disabled. Enable it on the portal, or use another one.",
    ),
    CallerState.USER_DISABLED: (
        "token_disabled",
        "The account that this token belongs to is disabled. Ask the portal's administrator.",
    ),
}


def unusable(state: CallerState) -> TokenUnusable:
    """Why a token in this state cannot be used."""
    code, message = _UNUSABLE[state]
    return TokenUnusable(message, code=code)


_CLOSED: Final = (
    "This relay answers without a token, but the token that stands for it, “Open relay”, is disabled or has expired, "
    "or its owner is disabled. Enable it on the portal, or send a token."
)
_PREFIX: Final = "sk-"
# A token without its prefix, as clients of one-api and new-api may send it.
_BARE: Final = re.compile(r"[A-Za-z0-9]{48}(-\d{1,18})?")
_KEYS: Final = (b"x-api-key", b"api-key", b"x-goog-api-key")


def presented_token(headers: Mapping[bytes, bytes]) -> str:
    """The token of a request: `Authorization: Bearer`, a bare `Authorization`, `x-api-key`, Azure's `api-key`, or
    Google's `x-goog-api-key`.

    Empty when there is none.
    """
    value = headers.get(b"authorization", b"").decode("latin-1").strip()
    scheme, _, rest = value.partition(" ")
    if rest:
        value = rest.strip() if scheme.lower() == "bearer" else ""
    found = value or next((headers[name] for name in _KEYS if headers.get(name)), b"").decode("latin-1").strip()
    return found[:512]


async def identify(exchange: Exchange) -> Caller:
    """The caller of a request. Raises InvalidToken, TokenUnusable, AddressBlocked, Forbidden, RelayUnavailable.

    Where the relay is open, its own token stands for none, and for a key that never was one. A token that has expired,
    or was disabled or revoked, is refused as elsewhere: somebody has ended what it was given for.
    """
    secret = presented_token(exchange.headers)
    caller = await _caller(exchange, secret)
    if caller is None and open_relay.digest:
        caller = await _open_caller(exchange, secret)
    if caller is None:
        raise await _refuse(exchange.ip, secret)
    address_block.succeeded(exchange.ip)
    exchange.caller = caller  # also of a request that is refused below
    state = caller.state(exchange.wall)
    if state is not CallerState.ACTIVE:
        raise unusable(state) if caller.digest != open_relay.digest else TokenUnusable(_CLOSED)
    if exchange.pinned and not caller.is_staff:
        raise Forbidden(
            "Only tokens of staff may name a channel. Leave the “-” and the number at the end of your token out.",
            code="channel_pin_not_allowed",
        )
    check_address(caller, exchange.ip)
    return caller


async def name_caller(exchange: Exchange) -> None:
    """Set the caller of a request that is refused whoever sends it, for the record. No token counts as a bad one."""
    secret = presented_token(exchange.headers)
    if secret and exchange.caller is None:
        with suppress(RelayUnavailable):
            exchange.caller = await _caller(exchange, secret)


async def _open_caller(exchange: Exchange, secret: str) -> Caller | None:
    """The caller that stands for a request whose key is unknown; None if it needs a token. Raises Forbidden."""
    if secret.startswith(PLAYGROUND_PREFIX) or not comes_from_here(exchange.ip, exchange.headers):
        return None  # a key of the playground has expired: it was somebody's
    whole = f"{_PREFIX}{secret}" if _BARE.fullmatch(secret) else secret
    if any(snapshot_cache.was_revoked(digest_of(one)) for one in (secret, whole, whole[:TOKEN_LENGTH]) if one):
        return None  # with a channel at its end, or without
    check_site(exchange.headers)
    exchange.pinned = 0  # what an unknown key ends with names no channel
    return await _known(open_relay.digest)


async def _caller(exchange: Exchange, secret: str) -> Caller | None:
    if not secret and open_relay.digest:
        return None
    caller = await _named(exchange, secret)
    if caller is None and _BARE.fullmatch(secret):
        caller = await _named(exchange, f"{_PREFIX}{secret}")
    return caller


async def _named(exchange: Exchange, secret: str) -> Caller | None:
    """The caller of a token as it is written, perhaps with a channel at its end."""
    if secret[TOKEN_LENGTH : TOKEN_LENGTH + 1] == "-" and (pin := whole_number(secret[TOKEN_LENGTH + 1 :])) is not None:
        secret, exchange.pinned = secret[:TOKEN_LENGTH], pin
    playground = secret.startswith(PLAYGROUND_PREFIX)
    digest = digest_of_key(secret, exchange.wall) if playground else digest_of(secret)
    caller = await _known(digest, "" if playground else secret)
    return replace(caller, playground=True) if playground and caller is not None else caller


async def _known(digest: str, secret: str = "") -> Caller | None:
    """The caller of a token's digest, of which the access log hears. `secret`: that was presented, if one was."""
    caller = snapshot_cache.cached(digest) or await snapshot_cache.caller(digest, secret)
    if caller is not None and (seen := callers_seen.get()) is not None:
        seen.append(caller)
    return caller


async def _refuse(ip: str, secret: str) -> InvalidToken | AddressBlocked:
    verdict = address_block.failed(ip, time.time())
    if verdict.blocked_for:
        message = (
            "Too many invalid tokens came from this address. Correct the token and try again after the time in "
            "Retry-After; a valid token works at once."
        )
        return AddressBlocked(message, retry_after=verdict.blocked_for)
    if verdict.new_block:
        until = clock.now() + timedelta(seconds=address_block.block)
        try:
            await snapshot_cache.in_thread(load.save_block, net.block_key(ip), verdict.failures, until)
        except RelayUnavailable:
            pass  # this worker blocks the address anyway; the fault has been logged
    return InvalidToken(_OF_STAFF if secret.startswith(STAFF_KEY) else _REFUSAL)


def read_blocks() -> None:
    """Read the blocked addresses that all workers share through the database. Synchronous."""
    address_block.replace(load.load_blocks(clock.now()))


snapshot_cache.on_reload(read_blocks)
snapshot_cache.on(Change.ADDRESS, lambda _: read_blocks())
