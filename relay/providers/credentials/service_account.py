"""Service accounts of Google Cloud: their key signs a claim, for which Google gives a token of an hour.

The private key is sent nowhere. The claim and the token are worth as much while they last, so that the claim goes to
Google's own hosts, and to others only where a setting names them.

Source: “Using OAuth 2.0 for server to server applications” of Google's identity documentation, RFC 7523, and
google-auth 2.63, read in November 2026.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import urlencode

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from portal.lib.json import Json, decode_object, encode, int_of, text_of
from portal.lib.texts import gettext_noop
from relay.providers.credentials.contract import BadKey, KeyRefused
from relay.transport.body import USER_AGENT, post

GOOGLE_TOKEN_URIS: Final = frozenset((
    "https://oauth2.googleapis.com/token",
    "https://accounts.google.com/o/oauth2/token",
    "https://www.googleapis.com/oauth2/v4/token",
))  # fmt: skip
_AUDIENCE: Final = "https://oauth2.googleapis.com/token"  # of a claim, wherever it is sent (google-auth)
_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_CLAIM_SECONDS: Final = 3600  # that a claim asks for, the most that Google gives
_AHEAD: Final = 600.0  # seconds before its end, or a quarter of its life, from which a token is renewed beside requests
_MARGIN: Final = 30.0  # seconds before its end in which a token is no longer used: requests take a while to arrive
_PAUSE: Final = 15.0  # seconds between two tries to renew a token that still holds
_YOUNG: Final = 60.0  # seconds of a token's age in which a 401 is about the account, and another token would not help
_SECONDS: Final = 20.0  # that an exchange may take
_CONNECT_SECONDS: Final = 10.0
_MOST: Final = 64 * 1024  # bytes of an answer with a token
_BEARER: Final = "Bearer "
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,16384}")
_HEADERS: Final = {
    "content-type": "application/x-www-form-urlencoded",
    "accept-encoding": "identity",
    "user-agent": USER_AGENT,
}

_NO_JSON: Final = gettext_noop(
    "The key is the JSON file of a service account, which Google Cloud makes under IAM, service accounts, keys. Paste "
    "the whole file."
)
_NOT_WHOLE: Final = gettext_noop(
    "This is no key of a service account: “type” must be service_account, and client_email, private_key and token_uri "
    "have to be there. Paste the whole file."
)
_NO_KEY: Final = gettext_noop(
    "The private_key of this service account is no RSA key in PEM form. Paste the whole file."
)
_ELSEWHERE: Final = gettext_noop(
    "The token_uri of this service account is not Google's. A key is sent nowhere else unless the setting "
    "GOOGLE_TOKEN_URIS names the address."
)


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """Keys that are JSON files of service accounts."""

    header = "authorization"
    is_json = True

    def check(self, secret: str, token_uris: Sequence[str]) -> None:
        account = _read(secret, token_uris)
        _private_key(account.private_key)

    def shown(self, secret: str) -> str:
        """The id of the key, as Google's console lists it."""
        return text_of(decode_object(secret) or {}, "private_key_id") or secret

    def headers(self, secret: str) -> dict[str, str]:
        return {}

    def signer(self, secret: str, token_uris: Sequence[str]) -> TokenSigner:
        return TokenSigner(_read(secret, token_uris))


SERVICE_ACCOUNT: Final = ServiceAccount()


@dataclass(frozen=True, slots=True)
class Account:
    """What a key's file says that is needed to ask for a token."""

    email: str
    key_id: str
    private_key: str = field(repr=False)
    token_uri: str = ""

    def claim(self, now: int) -> str:
        """A signed claim to be this account. `now`: seconds since 1970. Takes milliseconds of CPU. Raises BadKey."""
        head: Json = {"alg": "RS256", "typ": "JWT", "kid": self.key_id}
        body: Json = {
            "iss": self.email,
            "scope": _SCOPE,
            "aud": _AUDIENCE,
            "iat": now,
            "exp": now + _CLAIM_SECONDS,
        }
        text = b".".join(_base64url(encode(part)) for part in (head, body))
        signature = _private_key(self.private_key).sign(text, PKCS1v15(), SHA256())
        return (text + b"." + _base64url(signature)).decode()


@dataclass(slots=True)
class _Token:
    """A token of one account. Times are of `time.monotonic()`."""

    value: str = field(repr=False)
    began_at: float
    renew_at: float
    ends_at: float


class Tokens:
    """The tokens of one event loop, by account. One exchange at a time for each, whoever waits for it."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._held: dict[str, _Token] = {}
        self._running: dict[str, asyncio.Task[_Token]] = {}

    async def get(self, name: str, account: Account, send: httpx.AsyncBaseTransport) -> str:
        """A token that holds. Raises as `Signer.signed` does."""
        now = self._now()
        held = self._held.get(name)
        if held is None or now >= held.ends_at - _MARGIN:
            return (await asyncio.shield(self._exchange(name, account, send))).value
        if now >= held.renew_at:
            held.renew_at = now + _PAUSE
            self._exchange(name, account, send)
        return held.value

    def drop(self, name: str, refused: str) -> bool:
        """Forget a token that was refused, unless it is new. Returns whether `get` gives another one."""
        held = self._held.get(name)
        if held is None or held.value != refused:
            return True
        if self._now() - held.began_at < _YOUNG:
            return False
        del self._held[name]
        return True

    def _exchange(self, name: str, account: Account, send: httpx.AsyncBaseTransport) -> asyncio.Task[_Token]:
        running = self._running.get(name)
        if running is None:
            running = self._running[name] = asyncio.ensure_future(self._ask(account, send))
            running.add_done_callback(lambda task: self._end(name, task))
        return running

    async def _ask(self, account: Account, send: httpx.AsyncBaseTransport) -> _Token:
        began = self._now()
        value, seconds = await _exchanged(account, send)
        return _Token(value, began, began + seconds - min(_AHEAD, seconds / 4), began + seconds)

    def _end(self, name: str, task: asyncio.Task[_Token]) -> None:
        self._running.pop(name, None)
        if not task.cancelled() and task.exception() is None:
            self._held[name] = task.result()


_tokens: Final[dict[asyncio.AbstractEventLoop, Tokens]] = {}


def _tokens_here() -> Tokens:
    """Those of the running loop. Loops that have been closed are forgotten."""
    loop = asyncio.get_running_loop()
    found = _tokens.get(loop)
    if found is None:
        for closed in [other for other in tuple(_tokens) if other.is_closed()]:
            _tokens.pop(closed, None)
        found = _tokens[loop] = Tokens()
    return found


class TokenSigner:
    """Signs requests with the token of a service account."""

    def __init__(self, account: Account) -> None:
        self.account = account
        # Another key of the same account, and the same one for another address, has a token of its own.
        parts = (account.email, account.key_id, account.private_key, account.token_uri)
        self._name = hashlib.sha256("\0".join(parts).encode()).hexdigest()

    async def signed(self, request: httpx.Request, send: httpx.AsyncBaseTransport) -> dict[str, str]:
        return {"authorization": _BEARER + await _tokens_here().get(self._name, self.account, send)}

    def renewed(self, used: Mapping[str, str]) -> bool:
        return _tokens_here().drop(self._name, used["authorization"].removeprefix(_BEARER))


async def _exchanged(account: Account, send: httpx.AsyncBaseTransport) -> tuple[str, float]:
    """A token for a claim, and the seconds for which it holds. Raises as `Signer.signed` does."""
    try:
        async with asyncio.timeout(_SECONDS):
            claim = await asyncio.to_thread(account.claim, int(time.time()))
            form = urlencode({"grant_type": _GRANT, "assertion": claim}).encode()
            request = post(httpx.URL(account.token_uri), _HEADERS, form, _CONNECT_SECONDS)
            response = await send.handle_async_request(request)
            body = b""
            try:
                async for piece in response.stream:  # type: ignore[union-attr]  # asynchronous: of this transport
                    body += piece
                    if len(body) > _MOST:
                        break
            finally:
                await response.aclose()
    except TimeoutError:
        raise httpx.ConnectTimeout("the token endpoint did not answer in time") from None
    except httpx.ReadError as error:  # no request of a client was sent: nothing was charged
        raise httpx.ConnectError(f"the token endpoint: {error}") from None
    except BadKey as bad:
        raise KeyRefused(401, str(bad), "invalid_private_key") from None
    found = decode_object(body) or {}
    token = text_of(found, "access_token")
    if 200 <= response.status_code < 300 and _TOKEN.fullmatch(token):
        return token, float(int_of(found, "expires_in") or _CLAIM_SECONDS)
    raise _refusal(response, found)


def _refusal(response: httpx.Response, found: Json) -> KeyRefused:
    """Why there is no token: the key is at fault only where Google says so with an error of OAuth (RFC 6749, 5.2)."""
    code, said = text_of(found, "error"), text_of(found, "error_description")
    if 400 <= response.status_code < 500 and code and response.status_code not in {408, 429}:
        return KeyRefused(401, said or code, code)
    message = f"The token endpoint answered with HTTP {response.status_code}{f': {said or code}' if code else ''}"
    return KeyRefused(503, message, "token_unavailable", response.headers.get("retry-after", ""))


def _read(secret: str, token_uris: Sequence[str]) -> Account:
    """Raises BadKey."""
    found = decode_object(secret)
    if found is None:
        raise BadKey(_NO_JSON)
    email, key = text_of(found, "client_email"), text_of(found, "private_key")
    address = text_of(found, "token_uri")
    if text_of(found, "type") != "service_account" or not (email and key and address):
        raise BadKey(_NOT_WHOLE)
    if address not in GOOGLE_TOKEN_URIS and address not in token_uris:
        raise BadKey(_ELSEWHERE)
    return Account(email, text_of(found, "private_key_id"), key, address)


@lru_cache(maxsize=64)
def _private_key(text: str) -> RSAPrivateKey:
    """Raises BadKey. To check a key takes up to 0.1 s of CPU."""
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadKey(_NO_KEY) from None
    if not isinstance(key, RSAPrivateKey):
        raise BadKey(_NO_KEY)
    return key


def _base64url(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")
