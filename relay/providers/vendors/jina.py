"""Jina AI: embeddings, and reranking.

Source: Jina's OpenAPI documents, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="jina",
    label="Jina AI",
    position=230,
    base_url="https://api.jina.ai/v1",
    apis=frozenset({"embeddings", "rerank"}),
    parameters={"embeddings/encoding_format": "rename:embedding_type", "embeddings/user": "drop"},
)
