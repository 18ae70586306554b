"""Signing a user in and out at ChatGPT, for pages and commands. Synchronous; waits for the issuer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx
from django.conf import settings

from accounts.models import User
from portal.lib.json import Json
from portal.lib.net import Allowance
from portal.lib.texts import gettext_noop
from portal.services.outside import NotAnswering, waiting_for
from relay.channels.chatgpt_accounts import store
from relay.channels.chatgpt_accounts.calls import DeviceCode, Issuer
from relay.channels.chatgpt_accounts.places import Place, app_hints, may_have, place_of, refusal
from relay.channels.chatgpt_accounts.session import PlanSession
from relay.channels.chatgpt_accounts.session import finish as finish_refreshes
from relay.models import AllowedUpstream, ChatGPTAccount
from relay.providers.plan_requests.transport import PlanRefused
from relay.providers.plans.identity import identity_of, verified
from relay.providers.plans.login import (
    CALLBACK_PATH,
    Endpoints,
    LoginFailed,
    PendingLogin,
    Tokens,
    login_address,
    read_callback,
)
from relay.transport.pool import Upstreams

logger: Final = logging.getLogger(__name__)
T = TypeVar("T")
_SECONDS: Final = 60.0  # for all that is asked at once
_FINISH_SECONDS: Final = 15.0  # for a refresh that is running when the time is over, or somebody presses Ctrl-C
_PAGE_PORT: Final = 1455  # of the address at which a browser ends that nothing listens to


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in that has begun: the address for the browser, and what is kept until it comes back."""

    address: str
    login: PendingLogin
    shape: str
    began_at: float  # seconds since 1970

    def as_dict(self) -> Json:
        """For a session; holds secrets."""
        return {"login": self.login.as_dict(), "shape": self.shape, "began_at": self.began_at, "address": self.address}

    @classmethod
    def of(cls, kept: Any) -> Begun | None:
        """What `as_dict` gave. None: it is none, or too old."""
        try:
            found = cls(kept["address"], PendingLogin(**kept["login"]), kept["shape"], float(kept["began_at"]))
        except (KeyError, TypeError, ValueError):
            return None
        return found if found.began_at + settings.CONFIG.login_timeout_seconds > time.time() else None


def begin(user: User, port: int = 0) -> Begun:
    """Begin a sign-in in a browser. `port`: that is listened to on this machine, 0: none. Raises LoginFailed."""
    place = _place(user)
    account = store.account_of(user)
    host = place.shape.callback_host
    redirect = f"http://{host}:{place.shape.callback_port or port or _PAGE_PORT}{CALLBACK_PATH}"
    known = account.client_id if account is not None and account.shape == place.shape.key else ""
    login = PendingLogin.begin(settings.CONFIG.client_id or known or _first_client(place), redirect)
    again = account is not None and account.state == "incomplete"
    endpoints = _ask(place, lambda issuer: issuer.endpoints())
    address = login_address(place.shape, endpoints, login, app_hints(), again)
    return Begun(address, login, place.shape.key, time.time())


def callback_port() -> int:
    """The port at which the issuer sends the browser back, 0: any."""
    return place_of().shape.callback_port


def finish(user: User, begun: Begun, address: str, actor: Any = None, ip: str | None = None) -> ChatGPTAccount:
    """End a sign-in with the address that the browser ended at. Raises LoginFailed; nothing is changed then."""
    _place(user)
    place = place_of(begun.shape)

    async def work(issuer: Issuer) -> tuple[Tokens, Json, str]:
        endpoints = await issuer.endpoints()
        callback = read_callback(address, begun.login, endpoints)
        client_id = callback.client_id or begun.login.client_id
        if client_id == place.shape.first_client:
            raise LoginFailed(gettext_noop("The issuer refused the sign-in. Begin again."))
        tokens = await issuer.exchange(endpoints, begun.login, callback.code, client_id)
        if not tokens.scope and callback.scope:
            tokens = _with_scope(tokens, callback.scope)
        return tokens, await _claims(issuer, endpoints, tokens, client_id, begun.login.nonce), client_id

    tokens, claims, client_id = _ask(place, work)
    return _save(user, place, client_id, tokens, claims, actor, ip)


def begin_device(user: User) -> DeviceCode:
    """Begin a sign-in by a code that is typed on another device. Raises LoginFailed."""
    place = _place(user)
    if not place.shape.has_device:
        raise LoginFailed(gettext_noop("The issuer does not offer a sign-in by a code."))
    return _ask(place, lambda issuer: issuer.device_code(_first_client(place)))


def finish_device(user: User, device: DeviceCode, actor: Any = None, ip: str | None = None) -> ChatGPTAccount | None:
    """End such a sign-in; None: the code has not been typed yet. Raises LoginFailed."""
    place = _place(user)
    client_id = _first_client(place)

    async def work(issuer: Issuer) -> tuple[Tokens, Json] | None:
        answered = await issuer.device_answer(device, client_id)
        if answered is None:
            return None
        endpoints, (login, code) = await issuer.endpoints(), answered
        tokens = await issuer.exchange(endpoints, login, code, client_id)
        return tokens, await _claims(issuer, endpoints, tokens, client_id, "")

    found = _ask(place, work)
    return _save(user, place, client_id, *found, actor, ip) if found is not None else None


def sign_out(account: ChatGPTAccount, actor: Any = None, ip: str | None = None) -> bool:
    """Forget a sign-in here, and tell the issuer. Returns whether the issuer knows."""
    held, place = store.held_of(account), place_of(account.shape)
    store.save_sign_out(account, actor, ip)
    if not held.refresh:
        return False
    try:
        return _ask(place, lambda issuer: issuer.revoke(held.refresh, held.client_id))
    except LoginFailed as failed:
        logger.warning("the issuer could not be told of the end of the ChatGPT sign-in %d: %s", account.pk, failed)
        return False


def refresh_models(account: ChatGPTAccount) -> bool:
    """Fetch the models of a plan. Returns whether they were listed; what was listed before stays otherwise."""
    session, place = PlanSession(store.held_of(account)), place_of(account.shape)

    async def work(issuer: Issuer) -> list[Json] | None:
        send = issuer.way_out
        return await issuer.models(await session.signed(httpx.Request("GET", place.base_url), send))

    try:
        found = _ask(place, work)
    except (LoginFailed, PlanRefused) as reason:
        logger.warning("the models of the ChatGPT sign-in %d could not be listed: %s", account.pk, reason)
        return False
    if found is None:
        return False
    store.save_models(account.pk, found)
    return True


def _save(
    user: User, place: Place, client_id: str, tokens: Tokens, claims: Json, actor: Any, ip: str | None
) -> ChatGPTAccount:
    who = identity_of(claims, place.shape.namespace)
    account = store.save_sign_in(user, place, client_id, tokens, who, "sign-in", actor, ip)
    if account.state == "signed_in":
        refresh_models(account)
        account.refresh_from_db()
    return account


async def _claims(issuer: Issuer, endpoints: Endpoints, tokens: Tokens, client_id: str, nonce: str) -> Json:
    if not tokens.identity or not tokens.refresh:
        raise LoginFailed(gettext_noop("The issuer gave no token. Begin again."))
    return verified(tokens.identity, await issuer.keys(endpoints), endpoints.issuer, client_id, nonce)


def _with_scope(tokens: Tokens, scope: str) -> Tokens:
    return Tokens(tokens.access, tokens.refresh, tokens.identity, tokens.expires_at, scope)


def _place(user: User) -> Place:
    """Raises LoginFailed when the user may have no plan here, or the addresses of the settings may not be used."""
    place = place_of()
    if not may_have(user):
        raise LoginFailed(gettext_noop("The setting PLAN_USERS lets you use no plan of your own here."))
    if why := refusal(place):
        raise LoginFailed(
            gettext_noop(
                "An address of ISSUER_BASE_URL or UPSTREAM_BASE_URL may not be used: %(why)s. UPSTREAM_ALLOW allows "
                "addresses that are not public."
            ),
            why=why,
        )
    return place


def _first_client(place: Place) -> str:
    """Raises LoginFailed when the settings name none, and one is needed."""
    found = settings.CONFIG.client_id or place.shape.first_client
    if not found:
        raise LoginFailed(gettext_noop("The setting CLIENT_ID is needed for this form of sign-in."))
    return found


def _ask(place: Place, work: Callable[[Issuer], Awaitable[T]]) -> T:
    """Ask an issuer, in the time that a page has for others. Raises what `work` does, and LoginFailed."""
    allowed = AllowedUpstream.allowances()
    try:
        with waiting_for(f"the sign-in service {urlsplit(place.issuer).netloc}", _SECONDS) as seconds:
            return asyncio.run(_asked(place, work, allowed, seconds))
    except (NotAnswering, TimeoutError):
        raise LoginFailed(gettext_noop("The sign-in service does not answer. Try again later.")) from None


async def _asked(
    place: Place, work: Callable[[Issuer], Awaitable[T]], allowed: Sequence[Allowance], seconds: float
) -> T:
    upstreams = Upstreams(lambda: allowed, 4, settings.CONFIG.upstream_ca_file)
    try:
        async with asyncio.timeout(seconds):
            return await work(Issuer(place, upstreams.transport()))
    finally:
        await finish_refreshes(_FINISH_SECONDS)
        await upstreams.close()
