"""IO Intelligence (io.net).

Source: the address that models.dev has for it, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="ionet",
    label="IO Intelligence (io.net)",
    position=483,
    base_url="https://api.intelligence.io.solutions/api/v1",
    apis=CHAT,
)
