"""Worker processes and their last status. Rows are no configuration and may be deleted at any time."""

from __future__ import annotations

from django.db import models


class Worker(models.Model):
    """A worker process. While the page of running requests is open, also what it is serving."""

    name = models.CharField(max_length=40, unique=True)
    host = models.CharField(max_length=120)
    pid = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField(db_index=True)
    # JSON objects of running requests.
    running = models.JSONField(default=list)
    state = models.JSONField(default=dict)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return f"{self.host} {self.pid}"
