"""Vercel's AI gateway.

Source: Vercel's documentation and its client of the gateway, read in November 2026.
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
    return Balance(Decimal(str(answers[0]["balance"])), "USD")


VENDOR: Final = Vendor(
    key="vercel",
    label="Vercel AI Gateway",
    position=410,
    base_url="https://ai-gateway.vercel.sh/v1",
    apis=CHAT | {"responses", "messages", "embeddings"},
    failures=(
        rule(FailureClass.KEY_DEAD, "401", "authentication_error"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "404", "model_not_found"),
    ),
    balance=BalanceSource(("/credits",), _balance),
)
