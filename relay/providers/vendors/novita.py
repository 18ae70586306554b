"""Novita AI.

Source: Novita's OpenAPI document and error codes, and its errors as they are reported, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from relay.providers.accounts.balances import Balance, BalanceSource
from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor


def _balance(answers: Sequence[Any]) -> Balance:
    """In ten-thousandths of a USD."""
    return Balance(Decimal(str(answers[0]["availableBalance"])) / 10_000, "USD")


VENDOR: Final = Vendor(
    key="novita",
    label="Novita AI",
    position=473,
    base_url="https://api.novita.ai/openai/v1",
    apis=CHAT | {"completions", "embeddings"},
    failures=(
        rule(FailureClass.BILLING, "403", "not_enough_balance"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "403", "model_access_denied"),
    ),
    balance=BalanceSource(("//openapi/v1/billing/balance/detail",), _balance),
    price_list="novita",
)
