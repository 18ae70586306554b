"""The tokens that GeekAI's page recommends: one for chat, one for pictures, one for Midjourney and its like, and the rows to paste into GeekAI.

Facts of GeekAI: an API-KEY has a type, a value of at most 255 characters and an address of at most 100 without a slash at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from django.db import transaction
from django.utils.translation import gettext as _

from accounts.models import User
from relay.models import Token
from relay.models.token import TokenPurpose
from relay.tokens import lifecycle

_BUNDLE: Final = (("GeekAI chat", TokenPurpose.CHAT, "chat"), ("GeekAI Dalle3", TokenPurpose.IMAGES, "dalle"), ("GeekAI MidJourney", TokenPurpose.TASKS, "mj"))


@dataclass(frozen=True, slots=True)
class BundleRow:
    """What is pasted into one API-KEY of GeekAI."""

    token: Token
    type: str
    address: str
    secret: str
    note: str = ""


def make_bundle(user: User, origin: str, *, actor: Any, ip: str | None = None) -> list[BundleRow]:
    """Three tokens. Their secrets are in what is returned, and nowhere else in clear."""
    rows = []
    with transaction.atomic():
        for name, purpose, kind in _BUNDLE:
            token, secret = lifecycle.create_token(user, name, actor=actor, ip=ip, purpose=purpose)
            note = _("This version of the portal serves no Midjourney yet: the token is refused until it does.") if purpose == TokenPurpose.TASKS else ""
            rows.append(BundleRow(token, kind, origin, secret, note))
    return rows
