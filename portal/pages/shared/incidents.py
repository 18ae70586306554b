"""Incidents, as far as the models that they affect are a user's."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db.models import Q, QuerySet

from accounts.models import User
from portal.lib import clock
from relay.catalog.offers import models_of
from relay.models import Incident, Model

MOST_MODELS = 200  # of the status page


def open_incidents(user: User) -> list[Incident]:
    """Incidents that go on and that a user may read of. None where nobody has a status page."""
    now = Incident.objects.filter(resolved_at=None, started_at__lte=clock.now())
    if settings.CONFIG.status_page == "off" or not now.exists():
        return []
    return [one for one in incidents_of(list(models_of(user)[:MOST_MODELS]), 0) if one.resolved_at is None]


def incidents_of(models: list[Model], days: int) -> list[Incident]:
    """Current incidents, and those resolved within `days`, that affect everything or one of the models."""
    rows: QuerySet[Incident] = Incident.objects.filter(
        Q(resolved_at=None) | Q(resolved_at__gte=clock.now() - timedelta(days=days)), started_at__lte=clock.now()
    )
    return list(
        rows.filter(Q(models_limited=False) | Q(affected__in=models)).distinct().prefetch_related("affected")[:30]
    )
