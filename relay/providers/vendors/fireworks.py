"""Fireworks AI. A model is named with its account: `accounts/fireworks/models/…`.

Source: Fireworks' API reference and error codes, and its errors as they are reported, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="fireworks",
    label="Fireworks AI",
    position=471,
    base_url="https://api.fireworks.ai/inference/v1",
    apis=CHAT | {"responses", "messages", "completions", "embeddings", "rerank"},
    stores=True,
    failures=(
        # Also of adapters that cannot be loaded.
        rule(FailureClass.BILLING, "412", "precondition_failed", r"^account \S{1,100} is suspended"),
    ),
    price_list="fireworks",
)
