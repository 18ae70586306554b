"""Nscale.

Source: the address that LiteLLM 1.110.2 has for it, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="nscale",
    label="Nscale",
    position=481,
    base_url="https://inference.api.nscale.com/v1",
    apis=CHAT,
)
