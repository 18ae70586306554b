from __future__ import annotations

from django.db import models


class JobFault(models.Model):
    """A scheduled job that failed. Deleted when the job succeeds again."""

    name = models.CharField(max_length=80)
    subject = models.CharField(max_length=120)
    text = models.CharField(max_length=300)
    at = models.DateTimeField(auto_now=True)
    times = models.PositiveIntegerField(default=1)

    class Meta:
        verbose_name = "failed job"
        constraints = [models.UniqueConstraint(fields=["name", "subject"], name="one_fault_of_a_job")]

    def __str__(self) -> str:
        return f"{self.name}: {self.subject}"
