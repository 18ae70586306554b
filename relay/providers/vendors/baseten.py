"""Baseten.

Source: the address that LiteLLM 1.110.2 and models.dev have for it, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="baseten",
    label="Baseten",
    position=475,
    base_url="https://inference.baseten.co/v1",
    apis=CHAT,
    price_list="baseten",
)
