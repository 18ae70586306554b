"""MiniMax, outside China. Its models of before M3.1 write what they think into the text, between `<think>` tags.

Source: MiniMax's API reference and error codes (platform.minimax.io/docs), read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="minimax",
    label="MiniMax",
    position=120,
    base_url="https://api.minimax.io/v1",
    apis=CHAT | {"responses", "messages"},
    paths={"messages": "/../anthropic/v1/messages"},
    output_field="max_completion_tokens",
    parameters={"chat/n": "refuse:1"},
    price_list="minimax",
    price_search={"minimax": 110},
)
