"""Cohere. The relay does not speak its API; only its list prices are known.

Source: the names of vendors in genai-prices, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="cohere",
    label="Cohere",
    position=160,
    protocol="",
    price_search={"cohere": 100},
)
