from __future__ import annotations

from django.db import models


class Attempt(models.Model):
    """How often something that can be guessed was tried in one window of time. Shared by all workers."""

    subject = models.CharField(max_length=64)  # digest of what is attacked, such as the passwords of an account
    origin = models.CharField(max_length=64)  # digest of where the attempts came from; empty: from anywhere
    ends_at = models.BigIntegerField()  # when the window ends, in seconds since 1970
    count = models.PositiveIntegerField(default=0)

    class Meta:
        verbose_name = "attempt"
        constraints = [models.UniqueConstraint(fields=["subject", "origin", "ends_at"], name="attempt_of_window")]
        indexes = [models.Index(fields=["ends_at"], name="attempt_end")]

    def __str__(self) -> str:
        return f"{self.subject} {self.count}"
