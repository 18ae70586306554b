from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from django.conf import settings
from django.db import models

from portal.lib import clock

_SILENCE: Final = timedelta(seconds=45)  # without a heartbeat after which its process is taken to be gone


class Diagnosis(models.Model):
    """One run of the checks of the installation that a page has started, and its report.

    Written by `portal.doctor.runs` alone, in a process of its own.
    """

    began_at = models.DateTimeField(auto_now_add=True)
    seen_at = models.DateTimeField(auto_now_add=True, help_text="When the process that makes it was last heard of.")
    finished_at = models.DateTimeField(null=True)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+")
    language = models.CharField(max_length=12, default="en")
    response = models.BooleanField(default=True, help_text="Whether one real request is made.")
    stage = models.CharField(max_length=80, blank=True)
    done = models.PositiveIntegerField(default=0, help_text="Checks that have ended.")
    error = models.CharField(max_length=300, blank=True)
    report = models.JSONField(default=dict, help_text="What `airelays doctor --json` prints; empty while it runs.")

    class Meta:
        verbose_name_plural = "diagnoses"
        default_permissions = ()
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.began_at:%Y-%m-%d %H:%M} {self.state}"

    @property
    def state(self) -> str:
        """One of "running", "finished", "failed", or "stopped" when its process is gone."""
        if self.error:
            return "failed"
        if self.finished_at is not None:
            return "finished"
        return "running" if clock.now() - self.seen_at < _SILENCE else "stopped"

    @property
    def checks(self) -> list[dict[str, Any]]:
        """What was found, failures first."""
        order = {"fail": 0, "warn": 1, "skip": 2, "pass": 3}
        return sorted(self.report.get("checks", []), key=lambda check: order.get(check["status"], 0))
