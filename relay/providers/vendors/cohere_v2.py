"""Cohere with its own API, /v2: for documents, safety modes and budgets of thinking, and for vectors of any length.

Source: Cohere's API reference (docs.cohere.com/v2/reference) and its SDK 7.3, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import COHERE
from relay.providers.vendor import Vendor
from relay.providers.vendors import cohere

VENDOR: Final = Vendor(
    key="cohere_v2",
    telemetry_name="cohere",
    label="Cohere (its own API)",
    position=201,
    protocol="cohere",
    base_url="https://api.cohere.com/v2",
    models_path="//v1/models?page_size=1000&endpoint=chat",
    apis=COHERE | {"rerank"},
    late_system=True,
    failures=cohere.VENDOR.failures,
    price_list="cohere",
)
