from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q

from relay.models.fields import box


class NoticeKind(models.TextChoices):
    """What a notice is about."""

    LOW_BALANCE = "low_balance", "balance is low"
    BUDGET = "budget", "budget reached"
    REDEEMED = "redeemed", "code redeemed"
    KEY_DISABLED = "key_disabled", "upstream key taken out of service"
    KEY_ENABLED = "key_enabled", "upstream key back in service"
    CHANNEL = "channel", "channel needs attention"
    MODEL_LIST = "model_list", "an upstream's models changed"
    CACHE_SHARE = "cache_share", "less comes from prompt caches"
    BILL = "bill", "an upstream's bill differs"


class NoticeSettings(models.Model):
    """How a user receives notices: by e-mail, by a signed webhook, or both."""

    PURPOSE: ClassVar[str] = "webhook-secret"

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="notice_settings")
    by_email = models.BooleanField("by e-mail", default=True)
    low_balance = models.DecimalField(
        "tell me when my balance falls below",
        max_digits=12,
        decimal_places=2,
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="USD. Empty: the portal's own threshold.",
    )
    webhook_url = models.CharField(
        "webhook URL", max_length=300, blank=True, help_text="Is sent a signed POST of JSON. Empty: none."
    )
    sealed_secret = models.TextField(blank=True, editable=False)

    class Meta:
        verbose_name = verbose_name_plural = "notice settings"

    def __str__(self) -> str:
        return str(self.user)

    def set_secret(self, secret: str) -> None:
        """Encrypt and set the secret of the webhook. Does not save."""
        self.sealed_secret = box(self.PURPOSE).seal(secret)

    def secret(self) -> str:
        """Return the secret of the webhook in clear. Raises portal.lib.crypto.Undecryptable."""
        return box(self.PURPOSE).open(self.sealed_secret)


class Notice(models.Model):
    """A notice that is sent to a user once."""

    # What makes it unique, such as kind, user, threshold and period.
    key = models.CharField(max_length=120, unique=True)
    kind = models.CharField(max_length=12, choices=NoticeKind.choices)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="notices")
    subject = models.CharField(max_length=150)
    text = models.TextField()
    data = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)
    email_state = models.CharField(max_length=120, blank=True, help_text="sent, none, or why it failed")
    webhook_state = models.CharField(max_length=120, blank=True)
    tries = models.PositiveSmallIntegerField(default=0)
    next_try_at = models.DateTimeField(auto_now_add=True)
    done = models.BooleanField(default=False)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["next_try_at"], condition=Q(done=False), name="notice_waiting")]

    def __str__(self) -> str:
        return self.subject
