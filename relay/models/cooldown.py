"""Open circuits, shared by all workers through the database.

Rows are no configuration and may be deleted at any time.
"""

from __future__ import annotations

from django.db import models

from relay.models.catalog import Model
from relay.models.channel import ApiKey, Channel


class Cooldown(models.Model):
    """An open circuit: a channel, or one of its keys or models, that is cooling down."""

    # "channel:key:model" by ids, 0 for all keys or models.
    place = models.CharField(max_length=64, unique=True)
    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="cooldowns")
    api_key = models.ForeignKey(
        ApiKey, null=True, on_delete=models.CASCADE, related_name="cooldowns", verbose_name="key"
    )
    model = models.ForeignKey(Model, null=True, on_delete=models.CASCADE, related_name="cooldowns")
    kind = models.CharField("because", max_length=24)
    detail = models.CharField("what the upstream said", max_length=200, blank=True)
    opened = models.PositiveIntegerField(default=1, help_text="Times in a row.")
    guessed = models.BooleanField(
        default=False, help_text="The upstream named no time: used all the same when nothing else is left."
    )
    since = models.DateTimeField()
    until = models.DateTimeField("tried again at")
    worker = models.CharField(max_length=40, blank=True)

    class Meta:
        verbose_name = "cooldown"
        ordering = ["-since"]

    def __str__(self) -> str:
        return self.place
