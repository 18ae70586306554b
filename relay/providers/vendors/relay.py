"""Another relay for AI APIs, which passes on what its own upstreams say.

Source: the API that one-api, new-api and AIRelays have in common, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from relay.providers.balances import Balance, BalanceSource
from relay.providers.vendor import Vendor


def _balance(answers: Sequence[Any]) -> Balance:
    """In one-api's form: a limit in USD, and what is used in hundredths of a USD."""
    return Balance(Decimal(str(answers[0]["hard_limit_usd"])) - Decimal(str(answers[1]["total_usage"])) / 100, "USD")


VENDOR: Final = Vendor(
    key="relay",
    label="Another relay (one-api, new-api, AIRelays …)",
    position=990,
    balance=BalanceSource(("/dashboard/billing/subscription", "/dashboard/billing/usage"), _balance),
)
