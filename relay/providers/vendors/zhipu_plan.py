"""The coding plan of Z.ai and Zhipu (GLM), whose keys are its own: its address outside China.

What is left of it is told as a share of its tightest window, as Z.ai's own plugin for Claude Code reads it.

Source: Z.ai's API reference and error codes (docs.z.ai), and its plugins for coding agents, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from relay.providers.accounts.balances import Balance, BalanceSource
from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor
from relay.providers.vendors import zhipu


def _balance(answers: Sequence[Any]) -> Balance:
    """What is left of the window of tokens that is used up the most."""
    limits = [one for one in answers[0]["data"]["limits"] if one["type"] == "TOKENS_LIMIT"]
    return Balance(min(100 - Decimal(str(one["percentage"])) for one in limits), "%")


VENDOR: Final = Vendor(
    key="zhipu_plan",
    label="Z.ai Coding Plan (GLM)",
    position=91,
    base_url="https://api.z.ai/api/coding/paas/v4",
    apis=CHAT | {"responses", "messages"},
    paths={"responses": "/../../../v1/responses", "messages": "/../../../anthropic/v1/messages"},
    parameters=zhipu.VENDOR.parameters,
    failures=zhipu.VENDOR.failures,
    balance=BalanceSource(("//api/monitor/usage/quota/limit",), _balance),
    price_list="zai",
)
