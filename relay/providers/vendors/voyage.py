"""Voyage: embeddings, and reranking.

Source: Voyage's API reference and error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="voyage",
    label="Voyage AI",
    position=220,
    base_url="https://api.voyageai.com/v1",
    apis=frozenset({"embeddings", "rerank"}),
    parameters={
        "embeddings/dimensions": "rename:output_dimension",
        # Nothing or base64; answers are converted to what the client asks for.
        "embeddings/encoding_format": "drop",
        "embeddings/user": "drop",
        "rerank/top_n": "rename:top_k",
    },
    price_list="voyageai",
    price_search={"voyageai": 106},
)
