from __future__ import annotations

from datetime import timedelta
from typing import Final

from django.conf import settings
from django.db import models

from portal.lib import clock

_SILENCE: Final = timedelta(seconds=45)  # without a heartbeat after which its process is taken to be gone


class Run(models.Model):
    """Work that a page has started in a process of its own, which says by a heartbeat that it is still there."""

    began_at = models.DateTimeField(auto_now_add=True)
    seen_at = models.DateTimeField(auto_now_add=True, help_text="When the process that makes it was last heard of.")
    finished_at = models.DateTimeField(null=True)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        abstract = True
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.began_at:%Y-%m-%d %H:%M} {self.state}"

    @property
    def state(self) -> str:
        """One of "running", "failed", "stopped" when its process is gone, or how it has ended."""
        if self.error:
            return "failed"
        if self.finished_at is not None:
            return self.ended()
        return "running" if clock.now() - self.seen_at < _SILENCE else "stopped"

    def ended(self) -> str:
        """How a run that was made to its end has ended."""
        return "finished"

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return ((self.finished_at or clock.now()) - self.began_at).total_seconds()
