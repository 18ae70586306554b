"""Crusoe.

Source: the address that LiteLLM 1.110.2 has for it, and Crusoe's OpenAPI document, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="crusoe",
    label="Crusoe",
    position=482,
    base_url="https://api.inference.crusoecloud.com/v1",
    apis=CHAT,
)
