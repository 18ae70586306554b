from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db import models
from django.utils.translation import gettext_lazy as _

from accounts.models.fields import MomentField
from portal.lib import clock
from relay.models.catalog import Model


class Severity(models.TextChoices):
    MAINTENANCE = "maintenance", _("maintenance")
    DEGRADED = "degraded", _("slow or partly failing")
    OUTAGE = "outage", _("not available")


class Incident(models.Model):
    """An incident or a maintenance, shown on the status page."""

    title = models.CharField(_("title"), max_length=120)
    text = models.TextField(_("text"), blank=True, help_text=_("What happens, since when, and what is being done."))
    severity = models.CharField(_("severity"), max_length=12, choices=Severity.choices, default=Severity.DEGRADED)
    started_at = MomentField(_("began"), default=clock.now, begins=True)
    resolved_at = MomentField(_("over since"), null=True, blank=True, help_text=_("Empty: it goes on."))
    affected = models.ManyToManyField(
        Model,
        blank=True,
        related_name="incidents",
        verbose_name=_("models"),
        help_text=_("Choosing one shows the incident to users of those chosen. None: to everyone."),
    )
    # Outlives the rows of `affected`: users of others must not read about a model once it is deleted.
    models_limited = models.BooleanField(
        _("only these models"),
        default=False,
        help_text=_("While this is on and no model is chosen, no user sees the incident."),
    )

    class Meta:
        verbose_name = _("incident")
        verbose_name_plural = _("incidents")
        ordering = ["-started_at"]

    def __str__(self) -> str:
        return self.title

    def clean(self) -> None:
        if self.started_at and self.resolved_at and self.resolved_at < self.started_at:
            raise ValidationError({"resolved_at": _("It cannot be over before it began.")})
