"""Reads and writes conversations of /v1/conversations and their items. Synchronous: called in threads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.db import IntegrityError, transaction

from portal.lib import clock
from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode_object, encode, text_of
from relay.models import Conversation, ConversationItem
from relay.storage.responses import with_ids


class ItemExists(Exception):
    """The conversation has an item with this id already."""


def find_conversation(user_id: int, conversation_id: str) -> Conversation | None:
    """Return a conversation of a user that has not expired."""
    return Conversation.objects.filter(
        user=user_id, conversation_id=conversation_id, expires_at__gt=clock.now()
    ).first()


def create_conversation(user_id: int, items: Sequence[Json], metadata: Json, keep: timedelta) -> Conversation:
    """Create a conversation with its first items. `keep`: until it expires, unless it is continued.

    Raises ItemExists when two of the items have the same id.
    """
    now = clock.now()
    with transaction.atomic():
        row = Conversation.objects.create(
            conversation_id=f"conv_{time_ordered_hex()}",
            user_id=user_id,
            metadata=encode(metadata).decode(),
            created_at=now,
            expires_at=now + keep,
        )
        add_items(row, items, keep)
    return row


def add_items(row: Conversation, items: Sequence[Json], keep: timedelta) -> list[Json]:
    """Append items. Returns them with their ids. Raises ItemExists."""
    whole = with_ids(items, time_ordered_hex())
    rows = [
        ConversationItem(conversation=row, item_id=text_of(item, "id")[:120], body=encode(item).decode())
        for item in whole
    ]
    try:
        with transaction.atomic():
            ConversationItem.objects.bulk_create(rows)
            Conversation.objects.filter(pk=row.pk).update(expires_at=clock.now() + keep)
    except IntegrityError:
        raise ItemExists from None
    return whole


def set_metadata(row: Conversation, metadata: Json, keep: timedelta) -> None:
    """Replace the metadata of a conversation. It expires after `keep` from now."""
    row.metadata, row.expires_at = encode(metadata).decode(), clock.now() + keep
    row.save(update_fields=["metadata", "expires_at"])


def delete_conversation(row: Conversation) -> None:
    """Delete a conversation and all its items."""
    row.delete()


def find_item(row: Conversation, item_id: str) -> Json | None:
    """Return one item of a conversation."""
    body = row.items.filter(item_id=item_id).values_list("body", flat=True).first()
    return decode_object(body) if body is not None else None


def delete_item(row: Conversation, item_id: str) -> bool:
    """Delete one item. Returns False when the conversation has no such item."""
    gone, _rows = row.items.filter(item_id=item_id).delete()
    return bool(gone)


def stored_items(row: Conversation) -> list[Json]:
    """Return all items of a conversation, in order."""
    return [item for body in row.items.values_list("body", flat=True) if (item := decode_object(body)) is not None]


def conversation_items(user_id: int, conversation_id: str) -> tuple[int, list[Json]] | None:
    """Return a conversation's primary key and all its items, None when there is none."""
    row = find_conversation(user_id, conversation_id)
    return (row.pk, stored_items(row)) if row is not None else None


def conversation_object(row: Conversation) -> Json:
    """Return a conversation as the API sends it."""
    return {
        "id": row.conversation_id,
        "object": "conversation",
        "created_at": int(row.created_at.timestamp()),
        "metadata": decode_object(row.metadata) or {},
    }
