"""Who signed in: verifies ID tokens and reads their claims.

Source: OpenID Connect Core 1.0, section 3.1.3.7, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from portal.lib.json import Json, decode_object, object_of, text_of
from portal.lib.lazy import LazyModule
from portal.lib.texts import gettext_noop
from relay.providers.plans.login import LoginFailed

if TYPE_CHECKING:
    import jwt
else:
    jwt = LazyModule("jwt")  # with what it takes of cryptography 2 MiB, and signing in is rare

_ALGORITHMS: Final = ("RS256", "ES256")
_LEEWAY: Final = 60  # seconds by which clocks may differ


@dataclass(frozen=True, slots=True)
class Identity:
    """The person behind a sign-in, as the issuer says."""

    subject: str
    email: str
    plan: str
    account: str  # id of the account; empty: it has none


def verified(token: str, keys: bytes, issuer: str, client_id: str, nonce: str) -> Json:
    """The claims of an ID token. `keys`: the issuer's, a JWK set. `nonce`: empty, none was sent. Raises LoginFailed."""
    try:
        key = _key_of(token, keys)
        found: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=list(_ALGORITHMS),
            audience=client_id,
            issuer=issuer,
            leeway=_LEEWAY,
            options={"require": ["iss", "aud", "exp", "sub"]},
        )
    except jwt.PyJWTError:
        raise LoginFailed(gettext_noop("The issuer's proof of who signed in is not valid. Begin again.")) from None
    audience = found.get("aud")
    if isinstance(audience, list) and len(audience) != 1:
        raise LoginFailed(gettext_noop("The issuer's proof of who signed in is not valid. Begin again."))
    if not found["sub"] or (nonce and found.get("nonce") != nonce):
        raise LoginFailed(gettext_noop("The issuer's proof of who signed in is not valid. Begin again."))
    return found


def _key_of(token: str, keys: bytes) -> jwt.PyJWK:
    """Raises jwt.PyJWTError."""
    found = decode_object(keys)
    if found is None:
        raise jwt.PyJWKSetError("no JWK set")
    known = jwt.PyJWKSet.from_dict(found).keys
    name = jwt.get_unverified_header(token).get("kid")
    for key in known:
        if key.key_id == name or (name is None and len(known) == 1):
            return key
    raise jwt.PyJWKSetError("unknown key")


def identity_of(claims: Mapping[str, object], namespace: str) -> Identity:
    """The person that claims describe. `namespace`: how the names of the vendor's own claims begin."""
    own = object_of(claims, f"{namespace}/auth")
    email = text_of(claims, "email") or text_of(object_of(claims, f"{namespace}/profile"), "email")
    account = text_of(own, "chatgpt_account_id")
    return Identity(
        _shown(text_of(claims, "sub")),
        _shown(email),
        _shown(text_of(own, "chatgpt_plan_type")),
        account if account.isascii() and account.isprintable() else "",  # it is sent in a header
    )


def _shown(text: str) -> str:
    """A text without characters that move a terminal's cursor or that databases refuse."""
    return "".join(character for character in text if character.isprintable())
