"""Conversations and their items, as /v1/conversations keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.db import transaction

from portal.lib import clock
from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode_object, encode, text_of
from relay.models import Conversation, ConversationItem
from relay.storage.responses import named


def conversation(user_id: int, conversation_id: str) -> Conversation | None:
    return Conversation.objects.filter(user=user_id, conversation_id=conversation_id, expires_at__gt=clock.now()).first()


def create_conversation(user_id: int, items: Sequence[Json], metadata: Json, keep: timedelta) -> Conversation:
    now = clock.now()
    with transaction.atomic():
        row = Conversation.objects.create(conversation_id=f"conv_{time_ordered_hex()}", user_id=user_id, metadata=encode(metadata).decode(), created_at=now, expires_at=now + keep)
        add_items(row, items, keep)
    return row


def add_items(row: Conversation, items: Sequence[Json], keep: timedelta) -> list[Json]:
    """Append items; returns them with their ids. Raises IntegrityError when an id is there already."""
    whole = named(items, time_ordered_hex())
    with transaction.atomic():
        ConversationItem.objects.bulk_create(ConversationItem(conversation=row, item_id=text_of(item, "id")[:120], body=encode(item).decode()) for item in whole)
        Conversation.objects.filter(pk=row.pk).update(expires_at=clock.now() + keep)
    return whole


def items_of(row: Conversation) -> list[Json]:
    return [item for body in row.items.values_list("body", flat=True) if (item := decode_object(body)) is not None]


def conversation_items(user_id: int, conversation_id: str) -> tuple[int, list[Json]] | None:
    """Its key in the database, and everything that was said in it."""
    row = conversation(user_id, conversation_id)
    return (row.pk, items_of(row)) if row is not None else None


def conversation_object(row: Conversation) -> Json:
    return {"id": row.conversation_id, "object": "conversation", "created_at": int(row.created_at.timestamp()), "metadata": decode_object(row.metadata) or {}}
