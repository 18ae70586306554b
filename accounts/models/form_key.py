from __future__ import annotations

from django.db import models


class FormKey(models.Model):
    """The key of a form that was sent, so that the same form does its work once, however often it is sent."""

    key = models.CharField(max_length=43, unique=True)
    used_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        verbose_name = "form that was sent"

    def __str__(self) -> str:
        return self.key
