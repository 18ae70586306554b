from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from accounts.models.fields import MomentField
from portal.lib import clock


class RedemptionBatch(models.Model):
    """Redemption codes that were created together, for the same amount."""

    name = models.CharField(max_length=80)
    amount = models.BigIntegerField(help_text="Nano-USD of each code.")
    count = models.PositiveIntegerField()
    expires_at = MomentField("valid until", null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        verbose_name = "redemption codes"
        verbose_name_plural = "redemption codes"
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name


class RedemptionCode(models.Model):
    """A code that adds the amount of its batch to the wallet of the user who redeems it.

    Encrypted; found by its digest.
    """

    PURPOSE: ClassVar[str] = "redemption-code"

    batch = models.ForeignKey(RedemptionBatch, on_delete=models.CASCADE, related_name="codes")
    digest = models.CharField(max_length=64, unique=True)
    sealed = models.TextField()
    hint = models.CharField("code", max_length=24)
    enabled = models.BooleanField(default=True)
    redeemed_at = models.DateTimeField(null=True, blank=True)
    redeemed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT, related_name="redeemed_codes"
    )

    class Meta:
        verbose_name = "code"
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(redeemed_at__isnull=True) | Q(redeemed_by__isnull=False), name="code_redeemed_by_somebody"
            )
        ]

    def __str__(self) -> str:
        return self.hint

    def state(self) -> str:
        """Return "redeemed", "disabled", "expired" or "open"."""
        if self.redeemed_at:
            return "redeemed"
        if not self.enabled:
            return "disabled"
        return "expired" if self.batch.expires_at and self.batch.expires_at <= clock.now() else "open"
