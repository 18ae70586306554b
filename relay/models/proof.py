from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db import models

from portal.lib import clock

_SILENCE: Final = timedelta(seconds=45)  # without a heartbeat after which its process is taken to be gone


class BooksProof(models.Model):
    """One verification of the ledger: what was read, and what differs.

    Written by `relay.billing.ledger.proofs` alone.
    """

    began_at = models.DateTimeField(auto_now_add=True)
    seen_at = models.DateTimeField(auto_now_add=True, help_text="When the process that makes it was last heard of.")
    finished_at = models.DateTimeField(null=True)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    stage = models.CharField(max_length=40, blank=True)
    error = models.CharField(max_length=300, blank=True)
    accounts = models.BigIntegerField(default=0)
    entries = models.BigIntegerField(default=0)
    records = models.BigIntegerField(default=0)
    reservations = models.BigIntegerField(default=0)
    # Nano-USD.
    reserved = models.BigIntegerField(default=0)
    differing = models.BigIntegerField(default=0, help_text="Figures that differ from their entries.")
    differences = models.JSONField(default=list, help_text="The first hundred of them, in words.")
    totals = models.JSONField(default=dict, help_text="Nano-USD by account of the house.")

    class Meta:
        verbose_name, verbose_name_plural = "proof of the books", "proofs of the books"
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.began_at:%Y-%m-%d %H:%M} {self.state}"

    @property
    def state(self) -> str:
        """One of "running", "clean", "differs", "failed", or "stopped" when its process is gone."""
        if self.error:
            return "failed"
        if self.finished_at is not None:
            return "differs" if self.differing else "clean"
        return "running" if clock.now() - self.seen_at < _SILENCE else "stopped"

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return ((self.finished_at or clock.now()) - self.began_at).total_seconds()
