"""Creates the tokens that GeekAI needs, one each for chat, images and Midjourney, with the values to paste into it.

An API-KEY in GeekAI has a type, a value of at most 255 characters, and an address of at most 100 characters without a
trailing slash.
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

# (name, purpose, type in GeekAI)
_BUNDLE: Final = (
    ("GeekAI chat", TokenPurpose.CHAT, "chat"),
    ("GeekAI Dalle3", TokenPurpose.IMAGES, "dalle"),
    ("GeekAI MidJourney", TokenPurpose.TASKS, "mj"),
)


@dataclass(frozen=True, slots=True)
class BundleRow:
    """The values to paste into one API-KEY of GeekAI."""

    token: Token
    type: str
    address: str  # of this portal
    secret: str
    note: str = ""  # shown beside it, in the reader's language


def make_bundle(user: User, origin: str, *, actor: Any, ip: str | None = None) -> list[BundleRow]:
    """Create the three tokens. Only the return value has their secrets in clear.

    `origin`: the address of this portal.
    """
    rows = []
    with transaction.atomic():
        for name, purpose, kind in _BUNDLE:
            token, secret = lifecycle.create_token(user, name, actor=actor, ip=ip, purpose=purpose)
            note = (
                _("This version of the portal serves no Midjourney yet: the token is refused until it does.")
                if purpose == TokenPurpose.TASKS
                else ""
            )
            rows.append(BundleRow(token, kind, origin, secret, note))
    return rows
