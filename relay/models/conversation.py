"""Stored responses and conversations of users. Bodies are JSON text, as they were sent to the client."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from relay.models.byte_count import byte_count
from relay.models.channel import ApiKey, Channel
from relay.models.fields import LooseForeignKey
from relay.models.token import Token


class StoredResponse(models.Model):
    """A response of `/v1/responses` with the input of its turn. Its id is the portal's own.

    Interactions of Gemini's API are rows of it as well, by ids of their own (`relay.storage.apis.interactions`).
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="stored_responses")
    response_id = models.CharField(max_length=120)
    request_id = models.CharField(max_length=36, blank=True)
    model = models.CharField(max_length=120)
    channel = LooseForeignKey(Channel, null=True)
    api_key = LooseForeignKey(ApiKey, null=True)
    # The upstream stored it, too, so the next turn may name it there, on the same channel and with the same key.
    upstream_keeps = models.BooleanField(default=False)
    # Its id there. Empty in rows of version 0.2, whose `response_id` was the upstream's.
    upstream_id = models.CharField(max_length=512, blank=True, default="", db_default="")
    status = models.CharField(max_length=16)
    # The response or the conversation that this turn continues.
    previous_id = models.CharField(max_length=120, blank=True)
    conversation_id = models.CharField(max_length=64, blank=True)
    # JSON list of the items of this turn alone.
    input = models.TextField(blank=True)
    # JSON list of the output items in `body`, so that a conversation is read without the tools and instructions that
    # each body repeats. Null in rows of version 0.2.
    output = models.TextField(null=True)  # noqa: DJ001  # null, and not empty: it has not been written
    body = models.TextField(blank=True)
    # The worker that makes it, while it is made in the background.
    owner = models.CharField(max_length=120, blank=True)
    token = LooseForeignKey(Token, null=True)  # of an interaction in the background, which pays for it
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    size = byte_count("input", "output", "body")

    class Meta:
        verbose_name = "stored response"
        ordering = ["-id"]
        # Summed without reading the texts, which SQLite keeps before the sum.
        indexes = [
            models.Index(fields=["user", "size"], name="response_bytes_of_user"),
            models.Index(fields=["owner"], condition=~models.Q(owner=""), name="response_of_worker"),
        ]
        constraints = [models.UniqueConstraint(fields=["user", "response_id"], name="response_once_per_user")]

    def __str__(self) -> str:
        return self.response_id


class Conversation(models.Model):
    """A conversation of `/v1/conversations`, stored here independently of the channels that answer."""

    conversation_id = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="conversations")
    metadata = models.TextField(default="{}")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    size = byte_count("metadata")

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.conversation_id


class ConversationItem(models.Model):
    """One item of a conversation. Items are in the order of their primary keys."""

    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="items")
    item_id = models.CharField(max_length=120)
    body = models.TextField()
    size = byte_count("body")

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["conversation", "size"], name="bytes_of_conversation")]
        constraints = [models.UniqueConstraint(fields=["conversation", "item_id"], name="item_once_per_conversation")]

    def __str__(self) -> str:
        return self.item_id
