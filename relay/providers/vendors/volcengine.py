"""Volcengine Ark (Doubao). A model is named as such, or by the id of an endpoint (`ep-…`).

Source: Ark's API reference and error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="volcengine",
    label="Volcengine Ark (Doubao)",
    position=140,
    base_url="https://ark.cn-beijing.volces.com/api/v3",
    apis=CHAT | {"responses", "embeddings", "images.generations"},
    stores=True,
    parameters={"responses/parallel_tool_calls": "drop", "responses/metadata": "drop"},
)
