"""Meta's Model API.

Source: the address and APIs that LiteLLM 1.110.2 has for it, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="meta",
    label="Meta Model API",
    position=130,
    base_url="https://api.meta.ai/v1",
    apis=CHAT | {"responses", "messages"},
    price_list="meta",
    price_search={"meta": 104},
)
