"""Takes over the sign-in of AIRelays 0.x, which its owner has on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from accounts.models import User
from portal.lib.json import Json, object_of, text_of
from relay.channels.chatgpt_accounts import store
from relay.channels.chatgpt_accounts.places import place_of
from relay.models.chatgpt_account import SignInState
from relay.providers.plans.identity import identity_of
from relay.providers.plans.login import Tokens, claims_of, expiry_of, is_token

_SHAPE: Final = "codex"


def adopt(auth: Mapping[str, object], source: str) -> bool:
    """Adopt the contents of an `auth.json` of AIRelays. Returns whether there is such a sign-in now, or was before.

    It belongs to the only administrator: with several it is nobody's. It is not used before its owner turns it on.
    `source`: where it was found, for people. The tokens are as the issuer gave them, which refreshes them at first use.
    """
    tokens = object_of(auth, "tokens")
    given = tokens.get("id_token")
    identity = text_of(given, "raw_jwt") if isinstance(given, dict) else text_of(tokens, "id_token")
    access, refresh = text_of(tokens, "access_token"), text_of(tokens, "refresh_token")
    claims = claims_of(identity)
    if not is_token(refresh) or (access and not is_token(access)) or not claims:
        return False
    owners = list(User.objects.filter(is_superuser=True, is_active=True)[:2])
    if len(owners) != 1:
        return False
    known = store.account_of(owners[0])
    if known is not None and known.state != SignInState.SIGNED_OUT:
        return known.state == SignInState.SIGNED_IN
    place = place_of(_SHAPE)
    who = identity_of(claims, place.shape.namespace)
    given_account = text_of(tokens, "account_id")
    account = given_account if given_account.isascii() and given_account.isprintable() else who.account
    account = account or who.account
    bound = text_of(auth, "bound_account_id")
    if bound and account and bound != account:
        return False
    who = type(who)(who.subject, who.email, who.plan, account)
    held = Tokens(access, refresh, identity, expiry_of(access) or _last_use(auth), "")
    store.save_sign_in(owners[0], place, _client_of(claims), held, who, source, None, None)
    return True


def _client_of(claims: Json) -> str:
    """The client that an ID token was given to: only it can refresh the tokens beside it."""
    audience = claims.get("aud")
    first = audience[0] if isinstance(audience, list) and audience else audience
    return first[:200] if isinstance(first, str) else ""


def _last_use(auth: Mapping[str, object]) -> float:
    """When a token of which nothing is known is taken to expire: an hour after it was refreshed."""
    try:
        moment = datetime.fromisoformat(text_of(auth, "last_refresh"))
        known = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() + 3600
    except (ValueError, OverflowError):
        return time.time()
    return min(max(known, 0.0), time.time() + 3600)  # a clock may have been wrong
