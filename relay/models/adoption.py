from __future__ import annotations

from django.db import models


class Adoption(models.Model):
    """Something of AIRelays 0.x that was taken over, so that it is not taken over again after it was deleted here."""

    # What kind of thing it is, and its id, such as `file:file_0123`.
    source = models.CharField(max_length=200, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.source
