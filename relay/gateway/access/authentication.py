"""Who is calling, and may they: token, address, model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from portal.lib import clock, net
from relay.errors import AddressBlocked, Forbidden, InvalidToken, ModelNotFound, RelayUnavailable, TokenUnusable
from relay.gateway.access.address_block import guard
from relay.gateway.access.short_lived_keys import PREFIX as PASS_PREFIX
from relay.gateway.access.short_lived_keys import digest_in
from relay.gateway.exchange import Exchange
from relay.gateway.snapshot import load
from relay.gateway.snapshot.cache import store
from relay.gateway.snapshot.views import Caller, CallerState, ModelView, Snapshot
from relay.models.token import TOKEN_LENGTH, digest_of

_REFUSAL: Final = "The token is missing or not valid here. Send “Authorization: Bearer sk-…” with a token of this portal; you can see yours after signing in with a browser."
_UNUSABLE: Final = {
    CallerState.EXPIRED: ("token_expired", "This token has expired. Create a new one on the portal, or ask its administrator to extend it."),
    CallerState.TOKEN_DISABLED: ("token_disabled", "This token is disabled. Enable it on the portal, or use another one."),
    CallerState.USER_DISABLED: ("token_disabled", "The account that this token belongs to is disabled. Ask the portal's administrator."),
}


PURPOSES: Final[Mapping[str, frozenset[str]]] = {
    "chat": frozenset(("chat", "completions", "responses", "embeddings", "moderations", "rerank")),
    "images": frozenset(("images",)),
    "audio": frozenset(("audio", "realtime")),
    "tasks": frozenset(("tasks",)),
}
"""What tokens of a purpose open, by the first word of an endpoint's name. The list of models and the own usage are open to all."""
_PREFIX: Final = "openai/"
_GPT: Final = "g-"  # how OpenAI names GPTs in links; relays serve them as models of their own
_GPT_MODEL: Final = "gpt-4-gizmo-"


def presented_token(headers: Mapping[bytes, bytes]) -> str:
    """The token as official clients send it: `Authorization: Bearer`, a bare `Authorization`, or `x-api-key`. Empty when there is none."""
    value = headers.get(b"authorization", b"").decode("latin-1").strip()
    scheme, _, rest = value.partition(" ")
    if rest:
        value = rest.strip() if scheme.lower() == "bearer" else ""
    return (value or headers.get(b"x-api-key", b"").decode("latin-1").strip())[:512]


async def identify(exchange: Exchange) -> Caller:
    """The caller of a request. Raises InvalidToken, TokenUnusable, AddressBlocked, Forbidden, RelayUnavailable."""
    secret = presented_token(exchange.headers)
    if len(secret) > TOKEN_LENGTH and secret[TOKEN_LENGTH] == "-" and (pin := secret[TOKEN_LENGTH + 1 :]).isdecimal() and len(pin) < 19:
        secret, exchange.pinned = secret[:TOKEN_LENGTH], int(pin)
    digest = digest_in(secret, exchange.wall) if secret.startswith(PASS_PREFIX) else digest_of(secret)
    caller = store.cached(digest) or await store.caller(digest)
    if caller is None:
        raise await _refuse(exchange.ip)
    guard.succeeded(exchange.ip)
    state = caller.state(exchange.wall)
    if state is not CallerState.ACTIVE:
        code, message = _UNUSABLE[state]
        raise TokenUnusable(message, code=code)
    if exchange.pinned and not caller.is_staff:
        raise Forbidden("Only tokens of staff may name a channel. Leave the “-” and the number at the end of your token out.", code="channel_pin_not_allowed")
    check_address(caller, exchange.ip)
    return caller


def check_address(caller: Caller, ip: str) -> None:
    """Raises Forbidden when the token is limited to other addresses."""
    if caller.networks and not caller.may_come_from(net.parse_address(ip)):
        raise Forbidden("This token may not be used from your address. Its owner can change the allowed addresses on the portal.", code="ip_not_allowed")


async def _refuse(ip: str) -> InvalidToken | AddressBlocked:
    verdict = guard.failed(ip, time.time())
    if verdict.blocked_for:
        message = "Too many invalid tokens came from this address. Correct the token and try again after the time in Retry-After; a valid token works at once."
        return AddressBlocked(message, retry_after=verdict.blocked_for)
    if verdict.new_block:
        until = clock.now() + timedelta(seconds=guard.block)
        try:
            await store.in_thread(load.save_block, net.block_key(ip), verdict.failures, until)
        except RelayUnavailable:
            pass  # this worker blocks the address all the same; the fault is in the log
    return InvalidToken(_REFUSAL)


def find_model(snapshot: Snapshot, name: str) -> ModelView | None:
    """The model of a name: as it is written, as LiteLLM or GeekAI write it, or one of a family such as “gpt-4-gizmo-*”."""
    model = snapshot.models.get(name)
    if model is not None:
        return model
    if name.startswith(_PREFIX):
        return find_model(snapshot, name[len(_PREFIX) :])
    if name.startswith(_GPT):
        return find_model(snapshot, _GPT_MODEL + name)
    return snapshot.member(name)


def permitted_model(caller: Caller, snapshot: Snapshot, name: str, now: float) -> ModelView:
    """The model, if it exists and the caller may use it. Raises ModelNotFound, Forbidden."""
    model = find_model(snapshot, name)
    if model is None:
        shown = name if len(name) <= 100 else name[:99] + "…"
        raise ModelNotFound(f"The model “{shown}” does not exist here. GET /v1/models lists the models of your token.", param="model")
    if not caller.may_use(model, now):
        raise Forbidden(f"Your token may not use the model “{model.name}”. Ask the portal's administrator for the permission, or choose one from GET /v1/models.", param="model")
    return model


def check_purpose(caller: Caller, family: str) -> None:
    """Raises Forbidden when the token is for something else. `family`: the first word of an endpoint's name."""
    if caller.purpose and family not in PURPOSES[caller.purpose]:
        raise Forbidden(f"This token is for {caller.purpose} only. Use a token that is for everything, or for this.", code="purpose_not_allowed")


def usable_models(caller: Caller, snapshot: Snapshot, now: float) -> list[ModelView]:
    """What the caller may use and some channel serves, in order of name. Families are no names that can be asked for."""
    return [model for model in snapshot.models.values() if not model.name.endswith("*") and caller.may_use(model, now) and caller.routes(model)]
