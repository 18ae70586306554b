"""Chutes.

Source: LiteLLM 1.110.2, models.dev, and its errors as they are reported, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="chutes",
    label="Chutes",
    position=477,
    base_url="https://llm.chutes.ai/v1",
    apis=CHAT,
    failures=(rule(FailureClass.OVERLOAD, "429", text=r"^infrastructure is at maximum capacity"),),
)
