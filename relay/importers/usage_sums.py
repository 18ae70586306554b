"""Sums of what was used, by day, user, token, channel and model. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple


class UsageKey(NamedTuple):
    """What a sum is of. Ids are those of the source; empty: unknown, or none."""

    day: int  # an ordinal in the portal's time zone
    user: str
    token: str
    channel: str
    model: str


@dataclass(slots=True)
class UsageSum:
    """Figures in the order of `relay.usage.rollup.SUMS`."""

    requests: int = 0
    failed: int = 0
    faults: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    charged: int = 0  # nano-USD
    upstream_cost: int = 0  # nano-USD

    def values(self) -> tuple[int, ...]:
        return (
            self.requests,
            self.failed,
            self.faults,
            self.input,
            self.cached,
            self.output,
            self.charged,
            self.upstream_cost,
        )


@dataclass(slots=True)
class UsageChunk:
    """Some rows of a log, added up. They are carried over in one transaction with the mark."""

    mark: int  # the largest id of its rows
    rows: int = 0
    sums: dict[UsageKey, UsageSum] = field(default_factory=lambda: defaultdict(UsageSum))
