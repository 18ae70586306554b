"""Perplexity (Sonar). Its Agent API is not OpenAI's.

Source: Perplexity's API reference and its SDK 0.46, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="perplexity",
    label="Perplexity (Sonar)",
    position=210,
    base_url="https://api.perplexity.ai",
    models_path="/v1/models",
    apis=CHAT | {"embeddings"},
    paths={"embeddings": "/v1/embeddings"},
    cost_member="cost.total_cost",
    price_list="perplexity",
    price_search={"perplexity": 105},
)
