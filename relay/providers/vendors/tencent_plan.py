"""Tencent's coding plan, whose keys are its own.

Source: the address that models.dev has for it, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="tencent_plan",
    label="Tencent Coding Plan",
    position=151,
    base_url="https://api.lkeap.cloud.tencent.com/coding/v3",
    apis=CHAT,
)
