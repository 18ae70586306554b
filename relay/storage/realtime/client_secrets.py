"""Stores client secrets of /v1/realtime with their sessions. Synchronous: called in threads."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from django.db import connection

from portal import limits
from relay.errors import RateLimited
from relay.models import ClientSecret
from relay.models.token import digest_of
from relay.storage.room import check_room, room_lock

_DELETED_AT_ONCE: Final = 1000


def store(
    secret: str, user_id: int, token_id: int, token_digest: str, session: str, now: datetime, expires: datetime
) -> None:
    """Store a secret. Raises RateLimited when the user has too many, RequestTooLarge when there is no room for it."""
    with room_lock():
        rows = ClientSecret.objects.filter(user=user_id, expires_at__gt=now)
        if rows.count() >= limits.CLIENT_SECRETS:
            first = rows.order_by("expires_at").values_list("expires_at", flat=True)[0]
            message = (
                f"You have {limits.CLIENT_SECRETS} client secrets that have not expired. Wait until one has, or let "
                "new ones expire sooner with “expires_after”."
            )
            raise RateLimited(message, retry_after=max(1.0, (first - now).total_seconds()))
        check_room(user_id, len(session.encode()) + limits.ROW_BYTES)
        ClientSecret.objects.create(
            digest=digest_of(secret),
            user_id=user_id,
            token_id=token_id,
            token_digest=token_digest,
            session=session,
            created_at=now,
            expires_at=expires,
        )


def find(secret: str, now: datetime) -> tuple[str, str] | None:
    """The digest of the token that a secret stands for, and its session as JSON; None when it is not valid."""
    rows = ClientSecret.objects.filter(digest=digest_of(secret), expires_at__gt=now)
    found = rows.values_list("token_digest", "session").first()
    return (found[0], found[1]) if found is not None else None


def delete_expired(now: datetime) -> int:
    """Delete secrets that have expired. Returns how many."""
    pks = list(ClientSecret.objects.filter(expires_at__lte=now).values_list("pk", flat=True)[:_DELETED_AT_ONCE])
    return ClientSecret.objects.filter(pk__in=pks)._raw_delete(using=connection.alias) if pks else 0
