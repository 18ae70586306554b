"""OpenRouter.

Source: OpenRouter's API reference and error codes, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from relay.providers.apis import CHAT
from relay.providers.balances import Balance, BalanceSource
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor


def _balance(answers: Sequence[Any]) -> Balance:
    data = answers[0]["data"]
    return Balance(Decimal(str(data["total_credits"])) - Decimal(str(data["total_usage"])), "USD")


VENDOR: Final = Vendor(
    key="openrouter",
    label="OpenRouter",
    position=100,
    base_url="https://openrouter.ai/api/v1",
    apis=CHAT | {"completions", "embeddings"},
    parameters={
        "store": "drop",
    },
    failures=(
        rule(FailureClass.RATE, "402", "openrouter_in_flight_budget"),
        rule(FailureClass.BILLING, "402"),
        rule(
            FailureClass.QUOTA_WINDOW,
            "403",
            text=r"(key|budget|spend(ing)?) limit|limit exceeded",
            resets="midnight:UTC",
        ),
        rule(FailureClass.CONTENT, "403", text=r"moderation|guardrail|flagged"),
        rule(FailureClass.KEY_DEAD, "401"),
        rule(FailureClass.OVERLOAD, "503"),
    ),
    balance=BalanceSource(("/credits",), _balance),
    price_list="openrouter",
    price_search={"openrouter": 140},
)
