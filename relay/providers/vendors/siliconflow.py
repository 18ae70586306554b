"""SiliconFlow.

Source: SiliconFlow's API reference, read in November 2026.
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
    return Balance(Decimal(str(answers[0]["data"]["totalBalance"])), "")


VENDOR: Final = Vendor(
    key="siliconflow",
    label="SiliconFlow",
    position=470,
    base_url="https://api.siliconflow.com/v1",
    apis=CHAT | {"completions", "embeddings", "rerank", "images.generations", "audio.speech", "audio.transcriptions"},
    limits_thinking=False,  # which has a limit of its own, thinking_budget
    parameters={"images/n": "rename:batch_size", "images/size": "rename:image_size"},
    failures=(
        rule(FailureClass.BILLING, "402 403", "30001"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "400 403 404", "20012 30003"),
        rule(FailureClass.OVERLOAD, "500 503 504", "50505"),
    ),
    balance=BalanceSource(("/user/info",), _balance),
)
