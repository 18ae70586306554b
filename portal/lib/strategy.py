"""How a request is spread over channels. Read by the setting, by what models store, and by the selection itself."""

from __future__ import annotations

from enum import StrEnum


class Strategy(StrEnum):
    """How one of several channels of the same priority is chosen."""

    WEIGHTED = "weighted"
    ROUND_ROBIN = "round_robin"
    LEAST_IN_FLIGHT = "least_in_flight"
    LOWEST_LATENCY = "lowest_latency"
