"""Worker processes as they last told of themselves. No configuration: rows may be deleted at any time."""

from __future__ import annotations

from django.db import models


class Worker(models.Model):
    """A worker process that serves, and, while somebody looks, what it is serving."""

    name = models.CharField(max_length=40, unique=True)
    host = models.CharField(max_length=120)
    pid = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField(db_index=True)
    running = models.JSONField(default=list)
    state = models.JSONField(default=dict)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return f"{self.host} {self.pid}"
