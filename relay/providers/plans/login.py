"""Signing in with a vendor's account: OAuth 2.0 with PKCE, and OpenID Connect. Pure but for random numbers.

Source: RFC 6749, 7636, 8252, 8707, 9207 and OpenID Connect Core 1.0, read in November 2026.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

from portal.lib.json import Json, decode_object, int_of, text_of
from portal.lib.texts import TranslatableError, gettext_noop
from relay.providers.plans.shapes import Shape

CALLBACK_PATH: Final = "/auth/callback"
_MOST_ADDRESS: Final = 8000  # characters of an address that somebody pastes
_MOST_TOKEN: Final = 32_000  # characters of a token, which is sent in a header
_MOST_SECONDS: Final = 10 * 366 * 86_400  # that a token holds: who says more does not say when it expires
_LATEST: Final = 4_102_444_800  # seconds since 1970 until 2100: no token that is given today holds longer
_WRONG_ADDRESS: Final = gettext_noop(
    "This is not the address that the browser ended at. After you have signed in, copy the whole address from the "
    "browser: it begins with http://127.0.0.1 or http://localhost."
)
# Errors by which a refresh token is no more: only a new sign-in helps.
TERMINAL: Final = frozenset(
    (
        "invalid_grant",
        "invalid_refresh_token",
        "token_expired",
        "refresh_token_expired",
        "refresh_token_invalidated",
        "refresh_token_reused",
    )
)


class LoginFailed(TranslatableError):
    """A sign-in cannot go on. The message says why, without words of the issuer."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The addresses of an issuer, from its discovery document."""

    issuer: str
    authorization: str
    token: str
    keys: str
    revocation: str = ""


@dataclass(frozen=True, slots=True)
class PendingLogin:
    """A sign-in that has begun. All of it is secret, but for the address."""

    client_id: str
    redirect_uri: str
    state: str
    nonce: str
    verifier: str

    @classmethod
    def begin(cls, client_id: str, redirect_uri: str) -> PendingLogin:
        first, second = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        return cls(client_id, redirect_uri, first, second, secrets.token_urlsafe(48))

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    @property
    def challenge(self) -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Callback:
    """What the issuer sent the browser back with."""

    code: str
    client_id: str  # that was issued; empty: none was
    scope: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """What an issuer gave. Times are seconds since 1970."""

    access: str
    refresh: str
    identity: str = ""  # the ID token, empty: none came
    expires_at: float = 0.0  # of the access token, 0: not known
    scope: str = ""


def read_discovery(issuer: str, body: bytes) -> Endpoints:
    """Read the discovery document of an issuer. Raises LoginFailed."""
    found = decode_object(body) or {}
    if text_of(found, "issuer").rstrip("/") != issuer.rstrip("/"):
        raise LoginFailed(gettext_noop("The issuer's configuration cannot be read. Try again later."))
    endpoints = Endpoints(
        text_of(found, "issuer"),
        text_of(found, "authorization_endpoint"),
        text_of(found, "token_endpoint"),
        text_of(found, "jwks_uri"),
        text_of(found, "revocation_endpoint"),
    )
    # The first is opened in a browser: no script, file or program may be behind it.
    if not (endpoints.authorization.startswith(("https://", "http://")) and endpoints.token and endpoints.keys):
        raise LoginFailed(gettext_noop("The issuer's configuration cannot be read. Try again later."))
    return endpoints


def login_address(shape: Shape, endpoints: Endpoints, login: PendingLogin, app: Mapping[str, str], again: bool) -> str:
    """The address at which a person signs in. `app`: what names this app. `again`: consent is asked for once more."""
    query = {
        "response_type": "code",
        "client_id": login.client_id,
        "redirect_uri": login.redirect_uri,
        "scope": shape.scope,
        "code_challenge": login.challenge,
        "code_challenge_method": "S256",
        "state": login.state,
        "nonce": login.nonce,
        **({"resource": shape.resource} if shape.resource else {}),
        **(app if login.client_id == shape.first_client else {}),
        **dict(shape.extra),
        **({"prompt": "consent"} if again else {}),
    }
    return f"{endpoints.authorization}?{urlencode(query)}"


def read_callback(address: str, login: PendingLogin, endpoints: Endpoints) -> Callback:
    """Read the address that the browser was sent to, whole or from its question mark on. Raises LoginFailed."""
    text = address.strip()
    if len(text) > _MOST_ADDRESS:
        raise LoginFailed(_WRONG_ADDRESS)
    try:
        query = urlsplit(text if "?" in text else f"?{text}").query
        found = {name: values[0] for name, values in parse_qs(query, max_num_fields=30).items()}
    except ValueError:
        found = {}
    if not found.get("state") or not (found.get("code") or found.get("error")):
        raise LoginFailed(_WRONG_ADDRESS)
    if not secrets.compare_digest(found["state"].encode(), login.state.encode()):
        raise LoginFailed(gettext_noop("This address belongs to another sign-in. Begin again."))
    if found.get("iss", endpoints.issuer).rstrip("/") != endpoints.issuer.rstrip("/"):
        raise LoginFailed(gettext_noop("This address belongs to another sign-in. Begin again."))
    if found.get("error") == "access_denied":
        raise LoginFailed(gettext_noop("You did not give your consent, so nothing was changed."))
    if found.get("error"):
        raise LoginFailed(gettext_noop("The issuer refused the sign-in. Begin again."))
    return Callback(found["code"], found.get("client_id", ""), found.get("scope", ""))


def exchange_form(shape: Shape, login: PendingLogin, code: str, client_id: str) -> dict[str, str]:
    """The form that exchanges a code for tokens. `client_id`: as it was issued."""
    return {
        "grant_type": "authorization_code",
        "client_id": client_id,
        "code": code,
        "code_verifier": login.verifier,
        "redirect_uri": login.redirect_uri,
        **({"resource": shape.resource} if shape.resource else {}),
    }


def refresh_form(shape: Shape, refresh: str, client_id: str) -> dict[str, str]:
    """The members of a request for new tokens."""
    return {
        "grant_type": "refresh_token",
        "client_id": client_id,
        "refresh_token": refresh,
        **({"resource": shape.resource} if shape.resource else {}),
        **({"scope": shape.refresh_scope} if shape.refresh_scope else {}),
    }


def read_tokens(body: bytes, now: float, refresh: str = "") -> Tokens:
    """Read what an issuer answers with. `refresh`: the token that is kept where none comes. Raises LoginFailed."""
    found = decode_object(body) or {}
    access = text_of(found, "access_token")
    given = text_of(found, "refresh_token") or refresh
    if not is_token(access) or (given and not is_token(given)):
        raise LoginFailed(gettext_noop("The issuer gave no token. Begin again."))
    if (text_of(found, "token_type") or "bearer").lower() != "bearer":
        raise LoginFailed(gettext_noop("The issuer gave no token. Begin again."))
    seconds = int_of(found, "expires_in")
    return Tokens(
        access,
        given,
        text_of(found, "id_token"),
        now + seconds if 0 < seconds <= _MOST_SECONDS else expiry_of(access),
        text_of(found, "scope"),
    )


def error_code(body: bytes) -> str:
    """The code of an OAuth error, also where it is inside an error object. Empty: none is to be read."""
    found = decode_object(body) or {}
    error = found.get("error")
    if isinstance(error, dict):
        return text_of(error, "code") or text_of(error, "type")
    return error if isinstance(error, str) else text_of(found, "code")


def claims_of(token: str) -> Json:
    """The claims of a JWT, which are not verified: for tokens of our own, and to show. Empty: it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        return decode_object(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))) or {}
    except ValueError:
        return {}


def expiry_of(token: str) -> float:
    """When a token expires, in seconds since 1970, if it says so itself; 0: it does not, or no date has this number."""
    moment = int_of(claims_of(token), "exp")
    return float(moment) if moment <= _LATEST else 0.0


def is_token(text: str) -> bool:
    """Whether a header and a form can carry a text."""
    return 0 < len(text) <= _MOST_TOKEN and text.isascii() and text.isprintable() and " " not in text
