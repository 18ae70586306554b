"""The token in whose name an open relay answers requests without one. Synchronous."""

from __future__ import annotations

from typing import Final

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from accounts.models import AuditEvent, User
from relay.models import Token
from relay.models.token import make_token_secret

MARK: Final = "open-relay"  # of the token, in `built_in`


def open_relay_token() -> Token | None:
    """The token of the open relay, made now if there never was one. None if it was ended, or nobody could own it.

    One that was revoked, or whose user was disabled, is replaced by `open_again` alone: a program that starts anew by
    itself opens nothing that somebody has closed. Raises DatabaseError.
    """
    found: Token | None = Token.objects.filter(built_in=MARK).select_related("user").first()
    if found is not None:
        return found if found.revoked_at is None and found.user.is_active else None
    return _made()


def is_closed() -> bool:
    """Whether somebody has ended the open relay: its token was revoked, or its user was disabled."""
    found: Token | None = Token.objects.filter(built_in=MARK).select_related("user").first()
    return found is not None and (found.revoked_at is not None or not found.user.is_active)


def open_again() -> None:
    """Replace a token that was ended, because a person has asked for an open relay by a command."""
    if is_closed():
        _made()


def _made() -> Token | None:
    """A new token, of the first superuser. None without an active one."""
    owner = User.objects.filter(is_superuser=True, is_active=True).order_by("pk").first()
    if owner is None:
        return None
    token = Token(user=owner, name=_("Open relay"), built_in=MARK, notes=_("Of requests without a token."))
    token.set_secret(make_token_secret())  # known to nobody: no copy is kept
    token.sealed, token.hint = "", "sk-…"
    try:
        with transaction.atomic():
            Token.objects.filter(built_in=MARK).update(built_in=None)
            token.save()
            AuditEvent.write("token.create", None, token, None, owner=owner.get_username(), open_relay=True)
    except IntegrityError:  # another worker has made it meanwhile
        other: Token | None = Token.objects.filter(built_in=MARK, revoked_at=None).first()
        return other
    return token


def open_relay_digest() -> str:
    """The digest of that token, which is not made; empty where there is none, or it was ended."""
    rows = Token.objects.filter(built_in=MARK, revoked_at=None, user__is_active=True)
    return rows.values_list("digest", flat=True).first() or ""
