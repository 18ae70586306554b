"""Kimi's plan for coding agents, whose keys are its own.

It serves certain coding agents only, by the name that each gives of itself: the client's own goes on with its requests.
What is left of it is told as a share of its tightest window, as Kimi's own client reads it.

Source: www.kimi.com/code/docs, and reports in Kimi CLI's tracker of errors and of windows, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from relay.providers.accounts.balances import Balance, BalanceSource
from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor
from relay.providers.vendors import moonshot


def _balance(answers: Sequence[Any]) -> Balance:
    """What is left of the week, or of the window of five hours, if that is less."""
    windows = [answers[0]["usage"], *(one["detail"] for one in answers[0].get("limits") or ())]
    shares = (Decimal(str(one["remaining"])) / Decimal(str(one["limit"])) for one in windows)
    return Balance((min(shares) * 100).quantize(Decimal("0.1")), "%")


VENDOR: Final = Vendor(
    key="moonshot_plan",
    label="Kimi Code (coding plan)",
    position=71,
    base_url="https://api.kimi.com/coding/v1",
    headers={"anthropic-version": "2023-06-01"},
    tells_agent=True,
    apis=CHAT | {"messages"},
    parameters=moonshot.VENDOR.parameters,
    failures=(
        # To a client app that it does not serve: the key is right.
        rule(FailureClass.CLIENT, "403", "access_terminated_error", r"^kimi for coding is currently only available"),
        *moonshot.VENDOR.failures,
    ),
    balance=BalanceSource(("/usages",), _balance),
)
