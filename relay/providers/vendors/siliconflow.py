"""SiliconFlow.

Source: SiliconFlow's API reference, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from relay.providers.apis import CHAT
from relay.providers.balances import Balance, BalanceSource
from relay.providers.vendor import Vendor


def _balance(answers: Sequence[Any]) -> Balance:
    return Balance(Decimal(str(answers[0]["data"]["totalBalance"])), "")


VENDOR: Final = Vendor(
    key="siliconflow",
    label="SiliconFlow",
    position=150,
    base_url="https://api.siliconflow.com/v1",
    apis=CHAT | {"completions", "embeddings", "rerank", "images.generations", "audio.speech", "audio.transcriptions"},
    balance=BalanceSource(("/user/info",), _balance),
)
