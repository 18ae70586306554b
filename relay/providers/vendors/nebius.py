"""Nebius Token Factory.

Source: Nebius's documentation of the Token Factory, and the address that models.dev has for it, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="nebius",
    label="Nebius Token Factory",
    position=474,
    base_url="https://api.tokenfactory.nebius.com/v1",
    apis=CHAT | {"embeddings"},
)
