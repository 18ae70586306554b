"""Cohere. The relay does not speak its API; only its list prices are known.

Source: the names of vendors in genai-prices, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="cohere",
    label="Cohere",
    position=160,
    protocol="",
    failures=(
        rule(
            FailureClass.QUOTA_WINDOW,
            "429",
            text=r"^you are using a trial key, which is limited to [\d,]+ api calls / month",
            resets="month",
        ),
        rule(FailureClass.CONTENT, "498"),
    ),
    price_search={"cohere": 100},
)
