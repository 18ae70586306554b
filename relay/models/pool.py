from __future__ import annotations

from typing import Final

from django.db import models

from accounts.models import ChangeTracked
from portal.lib.strategy import Strategy

# Labels of strategies in the admin.
STRATEGY_WORDS: Final = {
    Strategy.WEIGHTED: "at random, by weight",
    Strategy.ROUND_ROBIN: "in turn, by weight",
    Strategy.LEAST_IN_FLIGHT: "the one with the fewest running requests",
    Strategy.LOWEST_LATENCY: "the one that lately answered fastest",
}
STRATEGY_CHOICES: Final = [(strategy.value, STRATEGY_WORDS[strategy]) for strategy in Strategy]


class Pool(ChangeTracked):
    """Channels that belong together and share a strategy."""

    name = models.CharField(max_length=80, unique=True)
    strategy = models.CharField(
        "choice of channels", max_length=16, choices=STRATEGY_CHOICES, default=Strategy.WEIGHTED.value
    )
    notes = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
