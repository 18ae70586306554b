from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from relay.models.channel import ApiKey, Channel
from relay.models.fields import LooseForeignKey


class SwitchReason(models.TextChoices):
    """Why a conversation was answered by another channel or key than the turn before."""

    FAILED = "failed", _("the request had failed there")
    LIMIT = "limit", _("it was at its limit")
    COOLING = "cooling", _("it was left alone after failures")
    KEY_OUT = "key_out", _("its key was out of service")
    KEY_REMOVED = "key_removed", _("its key was disabled or deleted")
    CHANNEL_OFF = "channel_off", _("the channel was disabled or deleted")
    MODEL_OFF = "model_off", _("it no longer served the model")
    PRIORITY = "priority", _("a channel of higher priority served")
    RETURNED = "returned", _("the conversation's usual channel served again")
    SCATTERED = "scattered", _("conversations of this model do not keep their channel")
    CONFIG = "config", _("channels, keys or their weights had been changed")


class CacheSwitch(models.Model):
    """A conversation left the channel or key that had its prompt cached, and what that cost, as an estimate.

    Written by `relay.usage.conversations.switches` when usage is added up. Of many in one hour, the rest are one row
    that says how many they were. Relations have no database constraint, since a row outlives what it refers to.
    """

    at = models.DateTimeField(db_index=True)
    user = LooseForeignKey(settings.AUTH_USER_MODEL, null=True)
    model = models.CharField(max_length=120)
    request_id = models.CharField(max_length=36, help_text="The first request that was answered elsewhere.")
    from_channel = LooseForeignKey(Channel, null=True)
    from_key = LooseForeignKey(ApiKey, null=True)
    to_channel = LooseForeignKey(Channel, null=True)
    to_key = LooseForeignKey(ApiKey, null=True)
    reason = models.CharField(max_length=12, choices=SwitchReason.choices)
    detail = models.CharField(max_length=20, blank=True, help_text="The class of the failure behind it.")
    tokens = models.BigIntegerField(help_text="That had been cached, and were read uncached or written anew.")
    cost = models.BigIntegerField(help_text="Nano-USD that these cost more than from the cache, as an estimate.")
    switches = models.PositiveIntegerField(default=1, help_text="That the row stands for.")

    class Meta:
        verbose_name = "switch from a warm cache"
        verbose_name_plural = "switches from warm caches"
        ordering = ["-id"]
        default_permissions = ()  # who may see usage records may see these
        indexes = [models.Index(fields=["from_channel", "at"], name="switch_channel_time")]

    def __str__(self) -> str:
        return f"{self.request_id}: {self.reason}"
