"""What an upstream itself says that a request costs. Pure."""

from __future__ import annotations

import math
from typing import Final

from portal.lib.json import decode_object, object_of

# By `relay.protocols.usage.CostMember`: nano-USD in one unit of it.
_COST_UNITS: Final[dict[str, float]] = {"cost": 1e9, "cost.total_cost": 1e9, "cost_in_usd_ticks": 0.1}
_LARGEST_COST: Final = 10**13  # nano-USD: 10,000 USD for one request


def reported_cost(raw: bytes, member: str) -> int | None:
    """What a usage object says that the request costs, in nano-USD; None when it does not.

    Source: the pages of xAI on cost tracking (10^10 ticks are a USD) and of OpenRouter on usage accounting (`cost` is
    what the account is charged; with the customer's own key at a vendor, that vendor charges the rest), November 2026.
    """
    usage = decode_object(raw)
    if usage is None or member not in _COST_UNITS:
        return None
    outer, _, inner = member.partition(".")
    stated = _number(object_of(usage, outer).get(inner) if inner else usage.get(outer))
    if stated is None:
        return None
    if member == "cost" and usage.get("is_byok") is True:
        stated += _number(object_of(usage, "cost_details").get("upstream_inference_cost")) or 0
    cost = stated * _COST_UNITS[member]
    return math.ceil(round(cost, 3)) if 0 <= cost <= _LARGEST_COST else None


def _number(value: object) -> int | float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
