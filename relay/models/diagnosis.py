from __future__ import annotations

from typing import Any

from django.db import models

from relay.models.run import Run


class Diagnosis(Run):
    """One run of the checks of the installation that a page has started, and its report.

    Written by `portal.doctor.runs` alone, in a process of its own.
    """

    language = models.CharField(max_length=12, default="en")
    response = models.BooleanField(default=True, help_text="Whether one real request is made.")
    stage = models.CharField(max_length=80, blank=True)
    done = models.PositiveIntegerField(default=0, help_text="Checks that have ended.")
    report = models.JSONField(default=dict, help_text="What `airelays doctor --json` prints; empty while it runs.")

    class Meta(Run.Meta):
        verbose_name_plural = "diagnoses"
        default_permissions = ()

    @property
    def checks(self) -> list[dict[str, Any]]:
        """What was found, failures first."""
        order = {"fail": 0, "warn": 1, "skip": 2, "pass": 3}
        return sorted(self.report.get("checks", []), key=lambda check: order.get(check["status"], 0))
