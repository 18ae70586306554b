"""Reads and writes conversations of /v1/conversations and their items. Synchronous: called in threads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from django.db import IntegrityError, transaction

from portal import limits
from portal.lib import clock
from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode_object, encode, text_of
from relay.models import Conversation, ConversationItem
from relay.models.byte_count import texts_of
from relay.storage.response_history import MAX_CHARACTERS, HistoryTooLong
from relay.storage.responses import with_ids
from relay.storage.room import check_room, room_lock

MAX_ITEMS: Final = 10_000  # of one conversation


class TooManyItems(Exception):
    """The conversation has as many items as one may have."""


class ItemExists(Exception):
    """The conversation has an item with this id already."""


def find_conversation(user_id: int, conversation_id: str) -> Conversation | None:
    """Return a conversation of a user that has not expired."""
    return Conversation.objects.filter(
        user=user_id, conversation_id=conversation_id, expires_at__gt=clock.now()
    ).first()


def create_conversation(user_id: int, items: Sequence[Json], metadata: Json, keep: timedelta) -> Conversation:
    """Create a conversation with its first items. `keep`: until it expires, unless it is continued.

    Raises ItemExists when two of the items have the same id, and RequestTooLarge.
    """
    now = clock.now()
    with room_lock():
        check_room(user_id, len(encode(metadata)) + limits.ROW_BYTES)
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
    """Append items. Returns them with their ids. Raises ItemExists, TooManyItems, RequestTooLarge."""
    whole = with_ids(items, time_ordered_hex())
    rows = [
        ConversationItem(conversation=row, item_id=text_of(item, "id")[:120], body=encode(item).decode())
        for item in whole
    ]
    more = sum(len(item.body.encode()) + limits.ROW_BYTES for item in rows)
    try:
        with room_lock():
            check_room(row.user_id, more)
            if row.items.count() + len(rows) > MAX_ITEMS:
                raise TooManyItems
            ConversationItem.objects.bulk_create(rows)
            Conversation.objects.filter(pk=row.pk).update(expires_at=clock.now() + keep)
    except IntegrityError:
        raise ItemExists from None
    return whole


def set_metadata(row: Conversation, metadata: Json, keep: timedelta) -> None:
    """Replace the metadata of a conversation. It expires after `keep` from now. Raises RequestTooLarge."""
    check_room(row.user_id, len(encode(metadata)) - row.size)
    row.metadata, row.expires_at = encode(metadata).decode(), clock.now() + keep
    row.save(update_fields=["metadata", "expires_at"])


def delete_conversation(row: Conversation) -> None:
    """Delete a conversation and all its items."""
    with transaction.atomic():
        # An answer that is being written may add an item at this moment: it is waited for, and deleted as well.
        locked = Conversation.objects.select_for_update().filter(pk=row.pk).first()
        if locked is not None:
            locked.delete()


def find_item(row: Conversation, item_id: str) -> Json | None:
    """Return one item of a conversation."""
    body = row.items.filter(item_id=item_id).values_list("body", flat=True).first()
    return decode_object(body) if body is not None else None


def delete_item(row: Conversation, item_id: str) -> bool:
    """Delete one item. Returns False when the conversation has no such item."""
    gone, _rows = row.items.filter(item_id=item_id).delete()
    return bool(gone)


def item_ids(row: Conversation) -> list[str]:
    """Return the ids of all items of a conversation, in order.

    An answer and its input are added whole, so that there can be more than MAX_ITEMS.
    """
    return list(row.items.values_list("item_id", flat=True))


def read_items(row: Conversation, ids: Sequence[str]) -> list[Json]:
    """Return the items with these ids, in their order, until they have MAX_CHARACTERS together; at least one."""
    sizes = dict(row.items.filter(item_id__in=ids).values_list("item_id", "size"))
    wanted: list[str] = []
    total = 0
    for item_id in ids:
        total += sizes.get(item_id, 0)
        if wanted and total > MAX_CHARACTERS:
            break
        wanted.append(item_id)
    bodies = dict(row.items.filter(item_id__in=wanted).values_list("item_id", "body"))
    return [item for item_id in wanted if (item := decode_object(bodies.get(item_id, ""))) is not None]


def conversation_items(user_id: int, conversation_id: str) -> tuple[int, list[Json]] | None:
    """Return a conversation's primary key and all its items, None when there is none. Raises HistoryTooLong."""
    row = find_conversation(user_id, conversation_id)
    if row is None:
        return None
    size = 0
    found: list[Json] = []
    for body in texts_of(row.items.all(), "body"):
        size += len(body)
        if size > MAX_CHARACTERS or len(found) >= MAX_ITEMS:
            raise HistoryTooLong
        if (item := decode_object(body)) is not None:
            found.append(item)
    return row.pk, found


def conversation_object(row: Conversation) -> Json:
    """Return a conversation as the API sends it."""
    return {
        "id": row.conversation_id,
        "object": "conversation",
        "created_at": int(row.created_at.timestamp()),
        "metadata": decode_object(row.metadata) or {},
    }
