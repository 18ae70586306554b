"""Together.

Source: Together's API reference, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import OPENAI_COMPATIBLE
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="together",
    label="Together",
    position=140,
    base_url="https://api.together.xyz/v1",
    apis=OPENAI_COMPATIBLE - {"moderations", "realtime", "images.variations"},
    price_list="together",
    price_search={"together": 130},
)
