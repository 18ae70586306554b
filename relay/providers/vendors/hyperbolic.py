"""Hyperbolic.

Source: the address that LiteLLM 1.110.2 has for it, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="hyperbolic",
    label="Hyperbolic",
    position=476,
    base_url="https://api.hyperbolic.xyz/v1",
    apis=CHAT,
)
