"""Creates, rotates, revokes and reveals relay tokens. Each writes an audit event in the same transaction."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import transaction

from accounts.models import AuditEvent, Change, User
from accounts.models.change import announce
from accounts.rights import exceeds
from portal.lib import clock
from relay.models import Model, Token
from relay.models.token import make_token_secret
from relay.tokens.relay_token import keep_in_step, token_file


def create_token(
    user: User,
    name: str,
    *,
    actor: Any,
    ip: str | None = None,
    expires_at: datetime | None = None,
    models_allowed: Iterable[Model] = (),
    allowed_ips: Iterable[str] = (),
    purpose: str = "",
    secret: str = "",
) -> tuple[Token, str]:
    """Create a token. Returns it and its secret, which is not stored in clear.

    `secret` is one that clients have already, of at least 160 random bits; otherwise it is made. `actor`: who gets to
    see it, None for a command. Raises PermissionDenied when the user has rights that the actor has not.
    """
    _check_rights(user, actor)
    secret = secret or make_token_secret()
    token = Token(user=user, name=name, expires_at=expires_at, allowed_ips=list(allowed_ips), purpose=purpose)
    token.set_secret(secret)
    with transaction.atomic():
        token.save()
        token.models_allowed.set(models_allowed)
        AuditEvent.write("token.create", actor, token, ip, owner=user.get_username())
    return token, secret


def store_secret(token: Token, secret: str) -> None:
    """Store a token, so far known by the SHA-256 of its secret, as any other, now that the secret was presented.

    Does nothing when another worker has done it meanwhile.
    """
    before = token.digest
    token.set_secret(secret)
    with transaction.atomic():
        row = Token.objects.filter(pk=token.pk, digest=before)
        if row.update(digest=token.digest, hint=token.hint, sealed=token.sealed):
            announce(Change.TOKEN, [token.digest])  # the digest before it was announced by the update


def rotate_token(token: Token, *, actor: Any, ip: str | None = None) -> str:
    """Give a token a new secret and return it. The old one stops working on every worker within a second.

    Raises PermissionDenied when its owner has rights that the actor has not.
    """
    _check_rights(token.user, actor)
    secret = make_token_secret()
    with transaction.atomic():
        _lock(token)
        file = token_file(token.digest)
        announce(Change.TOKEN, [token.digest])
        token.set_secret(secret)
        token.rotated_at = clock.now()
        token.save()
        AuditEvent.write("token.rotate", actor, token, ip)
    if file is not None:
        keep_in_step(file, secret)
    return secret


def revoke_token(token: Token, *, actor: Any, ip: str | None = None) -> None:
    """Revoke a token for good and end its running requests. Its usage stays."""
    if token.revoked_at:
        return
    with transaction.atomic():
        _lock(token)
        token.revoked_at, token.enabled, token.sealed = clock.now(), False, ""
        token.save()
        AuditEvent.write("token.revoke", actor, token, ip)


def reveal_token(token: Token, *, actor: Any, ip: str | None = None) -> str | None:
    """Return the secret of a token, to be shown to its owner, or None when no copy is stored."""
    with transaction.atomic():
        secret = token.reveal()
        AuditEvent.write("token.reveal", actor, token, ip, revealed=secret is not None)
    return secret


def _lock(token: Token) -> None:
    """Read again by what it is known, which its first use may have changed: workers are told of that digest."""
    token.refresh_from_db(fields=["digest", "hint", "sealed"], from_queryset=Token.objects.select_for_update())


def _check_rights(user: User, actor: Any) -> None:
    """A token acts with its owner's rights: nobody is given one of somebody with more of them."""
    if actor is not None and exceeds(user, actor):
        raise PermissionDenied


def changed_by_owner(token_id: int, user_id: int) -> bool:
    """Whether the last change of a token was made by its owner, according to the audit log."""
    events = AuditEvent.objects.filter(target_type=Token._meta.model_name, target_id=str(token_id)).order_by("-pk")
    return events.values_list("actor", flat=True).first() == user_id
