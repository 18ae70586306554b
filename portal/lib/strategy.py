"""The routing strategies, shared by the setting, the database models and the selection of channels."""

from __future__ import annotations

from enum import StrEnum


class Strategy(StrEnum):
    """How one of several channels of the same priority is chosen."""

    WEIGHTED = "weighted"
    ROUND_ROBIN = "round_robin"
    LEAST_IN_FLIGHT = "least_in_flight"
    LOWEST_LATENCY = "lowest_latency"
