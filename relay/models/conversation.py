"""What users have asked to be kept: responses and conversations. Bodies are JSON text, as they went over the wire."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from relay.models.channel import ApiKey, Channel


class StoredResponse(models.Model):
    """A response of `/v1/responses` with what was asked in that turn.

    `input`: a JSON list of the items of this turn alone; what came before is found by `previous_id` or `conversation_id`. `upstream_keeps`:
    the upstream stored it, too, so a next turn may name it there, on the same channel and with the same key. `owner`: the worker that
    makes it, while it is made in the background.
    """

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="stored_responses")
    response_id = models.CharField(max_length=120)
    request_id = models.CharField(max_length=36, blank=True)
    model = models.CharField(max_length=120)
    channel = models.ForeignKey(Channel, null=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False)
    api_key = models.ForeignKey(ApiKey, null=True, on_delete=models.DO_NOTHING, db_constraint=False, related_name="+", db_index=False)
    upstream_keeps = models.BooleanField(default=False)
    status = models.CharField(max_length=16)
    previous_id = models.CharField(max_length=120, blank=True)
    conversation_id = models.CharField(max_length=64, blank=True)
    input = models.TextField(blank=True)
    body = models.TextField(blank=True)
    owner = models.CharField(max_length=120, blank=True)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name = "stored response"
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["user", "response_id"], name="response_once_per_user")]

    def __str__(self) -> str:
        return self.response_id


class Conversation(models.Model):
    """A conversation of `/v1/conversations`, kept here whatever channel answers."""

    conversation_id = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="conversations")
    metadata = models.TextField(default="{}")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.conversation_id


class ConversationItem(models.Model):
    """One item, in the order of ids."""

    conversation = models.ForeignKey(Conversation, on_delete=models.CASCADE, related_name="items")
    item_id = models.CharField(max_length=120)
    body = models.TextField()

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["conversation", "item_id"], name="item_once_per_conversation")]

    def __str__(self) -> str:
        return self.item_id
