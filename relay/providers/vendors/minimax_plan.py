"""MiniMax's plan for coding agents, whose keys are its own: its address outside China.

What is left of it is told as a share of its tightest window.

Source: platform.minimax.io/docs/token-plan, and what apps that show the plan ask it, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from relay.providers.accounts.balances import Balance, BalanceSource
from relay.providers.vendor import Vendor
from relay.providers.vendors import minimax


def _balance(answers: Sequence[Any]) -> Balance:
    """What is left of the window of five hours, of the model that has the least: its “usage count” is the rest."""
    windows = [one for one in answers[0]["model_remains"] if one["current_interval_total_count"]]
    shares = (
        Decimal(one["current_interval_usage_count"]) / Decimal(one["current_interval_total_count"]) for one in windows
    )
    return Balance((min(shares) * 100).quantize(Decimal("0.1")), "%")


VENDOR: Final = Vendor(
    key="minimax_plan",
    label="MiniMax Token Plan",
    position=121,
    base_url=minimax.VENDOR.base_url,
    apis=minimax.VENDOR.apis,
    paths=minimax.VENDOR.paths,
    output_field=minimax.VENDOR.output_field,
    parameters=minimax.VENDOR.parameters,
    balance=BalanceSource(("/api/openplatform/coding_plan/remains",), _balance),
    price_list="minimax",
)
