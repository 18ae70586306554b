from __future__ import annotations

from django.db import models

from accounts.models import Change, ChangeTracked


class BlockedAddress(ChangeTracked):
    """A client address that sent too many invalid tokens. Valid tokens still work from it.

    Deleting the row unblocks it.
    """

    change_topic = Change.ADDRESS

    address = models.CharField(max_length=50, unique=True)
    failures = models.PositiveIntegerField()
    blocked_until = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = "blocked address"
        verbose_name_plural = "blocked addresses"
        ordering = ["-blocked_until"]

    def __str__(self) -> str:
        return self.address

    def change_key(self) -> str:
        return self.address
