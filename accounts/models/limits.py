from __future__ import annotations

from django.core.validators import MinValueValidator
from django.db import models

LIMIT_FIELDS = ("max_rpm", "max_tpm", "max_rpd", "max_concurrency")
_SOME = [MinValueValidator(1)]


class Limited(models.Model):
    """Rate limits of an object: a token, a user, a group, a model, a channel. Empty: no limit."""

    max_rpm = models.PositiveIntegerField("requests a minute", null=True, blank=True, validators=_SOME)
    max_tpm = models.PositiveIntegerField("tokens a minute", null=True, blank=True, validators=_SOME)
    max_rpd = models.PositiveIntegerField("requests a day", null=True, blank=True, validators=_SOME)
    max_concurrency = models.PositiveIntegerField(
        "requests at once", null=True, blank=True, validators=_SOME, help_text="A stream counts until it ends."
    )

    class Meta:
        abstract = True
