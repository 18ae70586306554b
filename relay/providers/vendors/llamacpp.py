"""The server of llama.cpp.

Source: the server's reference in llama.cpp's repository, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT, MESSAGES
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="llamacpp",
    label="llama.cpp server",
    position=920,
    needs_key=False,
    apis=CHAT | MESSAGES | {"completions", "embeddings", "rerank"},
)
