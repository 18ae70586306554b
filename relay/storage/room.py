"""How much room a user has left for everything that is stored for them, asked on every path that stores something.

Files, parts of uploads, responses, conversations and the results of batches count together. Synchronous: called in
threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, QuerySet, Sum

from portal import limits
from portal.lib import clock
from relay.errors import RequestTooLarge
from relay.models import (
    Batch,
    BatchLine,
    ClientSecret,
    Conversation,
    ConversationItem,
    Lease,
    StoredResponse,
    Upload,
    UploadSession,
)
from relay.models.upload import UploadState

_LOCK: Final = "uploads"
COUNTED_STATES: Final = (UploadState.RECEIVING, UploadState.PART, UploadState.STORED)


def show_bytes(count: int) -> str:
    return f"{count / limits.MIB:.1f} MiB" if count >= limits.MIB / 10 else f"{count:,} bytes"


@contextmanager
def room_lock() -> Iterator[None]:
    """A transaction in which no other worker counts or takes room."""
    with transaction.atomic():
        if connection.vendor != "sqlite":  # whose transactions exclude each other anyway
            Lease.objects.get_or_create(name=_LOCK, defaults={"owner": "", "until": clock.now()})
            Lease.objects.select_for_update().get(name=_LOCK)
        yield


def used_bytes(user_id: int) -> int:
    """The bytes of everything that is stored for a user, with a flat number for each row."""
    return (
        _sum(Upload.objects.filter(user=user_id, state__in=COUNTED_STATES))
        + _sum(StoredResponse.objects.filter(user=user_id))
        + _sum(Conversation.objects.filter(user=user_id))
        + _sum(ConversationItem.objects.filter(conversation__user=user_id))
        + _sum(Batch.objects.filter(user=user_id))
        + _sum(ClientSecret.objects.filter(user=user_id))
        + _sum(BatchLine.objects.filter(batch__user=user_id))
        + UploadSession.objects.filter(user=user_id).count() * limits.ROW_BYTES
    )


def _sum(rows: QuerySet[Upload] | QuerySet[StoredResponse] | QuerySet[Conversation] | QuerySet[ConversationItem]
         | QuerySet[Batch] | QuerySet[BatchLine] | QuerySet[ClientSecret]) -> int:  # fmt: skip
    # The condition holds for all rows. Without it SQLite takes an index without sizes, and reads each row, texts too.
    found = rows.filter(size__gte=0).aggregate(bytes=Sum("size"), rows=Count("pk"))
    return int(found["bytes"] or 0) + int(found["rows"]) * limits.ROW_BYTES


def room_left(user_id: int) -> int:
    """The bytes that may still be stored for a user; negative when there are too many."""
    return int(settings.CONFIG.max_user_stored_bytes) - used_bytes(user_id)


def check_room(user_id: int, more: int) -> None:
    """Check that a user may store `more` bytes. Raises RequestTooLarge."""
    left = room_left(user_id)
    if more > left:
        raise no_room(left)


def no_room(left: int) -> RequestTooLarge:
    most = show_bytes(settings.CONFIG.max_user_stored_bytes)
    return RequestTooLarge(
        f"Your files, responses, conversations and batches may take up {most} together, and {show_bytes(max(0, left))} "
        "of it are free. Delete some that you do not need any more, then try again.",
        code="storage_quota_exceeded",
    )
