"""What is asked of an issuer, and of a plan beside requests of users. An issuer's bodies are shown to nobody."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import httpx

from portal.lib import net
from portal.lib.json import Json, decode_object, encode, int_of, text_of
from portal.lib.texts import gettext_noop
from relay.channels.chatgpt_accounts.places import Place
from relay.providers.plans.catalogue import read_models
from relay.providers.plans.login import (
    TERMINAL,
    Endpoints,
    LoginFailed,
    PendingLogin,
    Tokens,
    error_code,
    exchange_form,
    read_discovery,
    read_tokens,
    refresh_form,
)
from relay.transport.body import USER_AGENT

_DISCOVERY: Final = "/.well-known/openid-configuration"
# Of the addresses in `Endpoints`, where there is no discovery document.
_OWN_PATHS: Final = ("/oauth/authorize", "/oauth/token", "/.well-known/jwks.json", "/oauth/revoke")
_MOST: Final = 1024 * 1024  # bytes of an answer
_TIMEOUT: Final = 30.0
_DEVICE: Final = "/api/accounts/deviceauth"
_AWAY = gettext_noop("The sign-in service does not answer. Try again later.")


class RefreshRefused(Exception):
    """The issuer does not take the refresh token. `terminal`: only a new sign-in helps."""

    def __init__(self, code: str, terminal: bool) -> None:
        super().__init__(code)
        self.code, self.terminal = code, terminal


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """A sign-in by a code that is typed on another device."""

    id: str
    user_code: str
    address: str
    interval: float  # seconds between two questions


@dataclass(frozen=True, slots=True)
class _Said:
    status: int
    body: bytes


class Issuer:
    """The issuer and the plan of one place, over one way out."""

    def __init__(self, place: Place, send: httpx.AsyncBaseTransport) -> None:
        self.place, self.way_out = place, send

    async def endpoints(self) -> Endpoints:
        """Raises LoginFailed."""
        issuer = self.place.issuer
        if not self.place.shape.discovers:
            own = (f"{issuer}{path}" for path in _OWN_PATHS)
            return Endpoints(issuer, *own)
        said = await self._asked(httpx.Request("GET", issuer + _DISCOVERY))
        if said.status != 200:
            raise LoginFailed(_AWAY)
        return read_discovery(self.place.issuer, said.body)

    async def exchange(self, endpoints: Endpoints, login: PendingLogin, code: str, client_id: str) -> Tokens:
        """Exchange a code for tokens. Raises LoginFailed."""
        said = await self._form(endpoints.token, exchange_form(self.place.shape, login, code, client_id))
        if said.status != 200:
            raise LoginFailed(gettext_noop("The issuer did not take the code, which may be used once. Begin again."))
        return read_tokens(said.body, time.time())

    async def keys(self, endpoints: Endpoints) -> bytes:
        """The issuer's keys, a JWK set. Raises LoginFailed."""
        said = await self._asked(httpx.Request("GET", endpoints.keys))
        if said.status != 200:
            raise LoginFailed(_AWAY)
        return said.body

    async def refresh(self, refresh: str, client_id: str) -> Tokens:
        """New tokens. Raises RefreshRefused, also when the issuer does not answer."""
        try:
            endpoints = await self.endpoints()
            form = refresh_form(self.place.shape, refresh, client_id)
            if self.place.shape.refresh_scope:
                said = await self._json(endpoints.token, dict(form))
            else:
                said = await self._form(endpoints.token, form)
            if said.status == 200:
                return read_tokens(said.body, time.time(), refresh)
        except LoginFailed:
            raise RefreshRefused("unavailable", False) from None
        code = error_code(said.body)
        known = code if code in TERMINAL else ("invalid_client" if code == "invalid_client" else "refused")
        raise RefreshRefused(known, code in TERMINAL or (said.status == 401 and code != "invalid_client"))

    async def revoke(self, refresh: str, client_id: str) -> bool:
        """Tell the issuer that a sign-in has ended. Returns whether it knows. Raises LoginFailed."""
        endpoints = await self.endpoints()
        if not endpoints.revocation:
            return False
        form = {"token": refresh, "token_type_hint": "refresh_token", "client_id": client_id}
        return (await self._form(endpoints.revocation, form)).status == 200

    # -- the code on another device ----------------------------------------------------------------------------------

    async def device_code(self, client_id: str) -> DeviceCode:
        """Begin a sign-in on another device. Raises LoginFailed."""
        said = await self._json(f"{self.place.issuer}{_DEVICE}/usercode", {"client_id": client_id})
        if said.status == 404:
            raise LoginFailed(gettext_noop("The issuer does not offer a sign-in by a code."))
        found = decode_object(said.body) or {}
        code = text_of(found, "user_code") or text_of(found, "usercode")
        if said.status != 200 or not code or not text_of(found, "device_auth_id"):
            raise LoginFailed(_AWAY)
        given = text_of(found, "interval")
        seconds = int(given) if given.isascii() and given.isdigit() else int_of(found, "interval")
        interval = float(min(max(seconds or 5, 1), 60))
        return DeviceCode(text_of(found, "device_auth_id"), code, f"{self.place.issuer}/codex/device", interval)

    async def device_answer(self, device: DeviceCode, client_id: str) -> tuple[PendingLogin, str] | None:
        """The sign-in and its code once the person has typed theirs; None: not yet. Raises LoginFailed."""
        body: Json = {"device_auth_id": device.id, "user_code": device.user_code}
        said = await self._json(f"{self.place.issuer}{_DEVICE}/token", body)
        if said.status in {403, 404}:
            return None
        found = decode_object(said.body) or {}
        code, verifier = text_of(found, "authorization_code"), text_of(found, "code_verifier")
        if said.status != 200 or not code or not verifier:
            raise LoginFailed(gettext_noop("The issuer refused the sign-in. Begin again."))
        return PendingLogin(client_id, f"{self.place.issuer}/deviceauth/callback", "", "", verifier), code

    # -- the plan ----------------------------------------------------------------------------------------------------

    async def models(self, headers: Mapping[str, str]) -> list[Json] | None:
        """The models of the plan; None: they could not be listed. Raises LoginFailed when nothing answers."""
        query = f"?{urlencode({'client_version': self.place.version})}" if self.place.shape.versioned else ""
        said = await self._asked(httpx.Request("GET", f"{self.place.base_url}/models{query}", headers=dict(headers)))
        return read_models(said.body, self.place.version) if said.status == 200 else None

    async def _form(self, address: str, form: Mapping[str, str]) -> _Said:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        return await self._asked(httpx.Request("POST", address, headers=headers, content=urlencode(form)))

    async def _json(self, address: str, body: Json) -> _Said:
        headers = {"content-type": "application/json"}
        return await self._asked(httpx.Request("POST", address, headers=headers, content=encode(body)))

    async def _asked(self, request: httpx.Request) -> _Said:
        """Raises LoginFailed when nothing answers."""
        if net.origin(str(request.url)) not in {net.origin(self.place.issuer), net.origin(self.place.base_url)}:
            raise LoginFailed(gettext_noop("The issuer's configuration cannot be read. Try again later."))
        request.headers.setdefault("user-agent", USER_AGENT)
        request.headers["accept"], request.headers["accept-encoding"] = "application/json", "identity"
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), _TIMEOUT)
        try:
            response = await self.way_out.handle_async_request(request)
            body = b""
            try:
                async for piece in response.stream:  # type: ignore[union-attr]  # asynchronous: of this transport
                    body += piece
                    if len(body) > _MOST:
                        raise LoginFailed(_AWAY)
            finally:
                await response.aclose()
        except (httpx.TransportError, httpx.InvalidURL, OSError, ValueError):
            raise LoginFailed(_AWAY) from None
        return _Said(response.status_code, body)
