"""Poe.

Source: Poe's API reference and error codes, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from relay.providers.accounts.balances import Balance, BalanceSource
from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor


def _balance(answers: Sequence[Any]) -> Balance:
    return Balance(Decimal(str(answers[0]["current_point_balance"])), "points")


VENDOR: Final = Vendor(
    key="poe",
    label="Poe",
    position=430,
    base_url="https://api.poe.com/v1",
    apis=CHAT,
    balance=BalanceSource(("//usage/current_balance",), _balance),
)
