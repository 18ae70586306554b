"""MiniMax. The relay does not speak its API; only its list prices are known.

Source: the names of vendors in genai-prices, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="minimax",
    label="MiniMax",
    position=170,
    protocol="",
    price_search={"minimax": 110},
)
