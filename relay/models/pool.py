from __future__ import annotations

from django.db import models

from accounts.models import ChangeTracked


class Strategy(models.TextChoices):
    """How one of several channels of the same priority is chosen. The values are those of `relay.gateway.routing.selection.Strategy`."""

    WEIGHTED = "weighted", "at random, by weight"
    ROUND_ROBIN = "round_robin", "in turn, by weight"
    LEAST_IN_FLIGHT = "least_in_flight", "the one with the fewest running requests"
    LOWEST_LATENCY = "lowest_latency", "the one that lately answered fastest"


class Pool(ChangeTracked):
    """Channels that belong together and share a strategy."""

    name = models.CharField(max_length=80, unique=True)
    strategy = models.CharField("choice of channels", max_length=16, choices=Strategy.choices, default=Strategy.WEIGHTED)
    notes = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
