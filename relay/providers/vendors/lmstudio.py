"""LM Studio, on this machine unless the channel says otherwise.

Source: LM Studio's developer documentation, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="lmstudio",
    label="LM Studio",
    position=925,
    base_url="http://127.0.0.1:1234/v1",
    needs_key=False,
    apis=CHAT | {"responses", "messages", "completions", "embeddings"},
    stores=True,
)
