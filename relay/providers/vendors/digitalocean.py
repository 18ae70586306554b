"""DigitalOcean's serverless inference.

Source: DigitalOcean's reference of the inference APIs, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="digitalocean",
    label="DigitalOcean",
    position=350,
    base_url="https://inference.do-ai.run/v1",
    apis=CHAT,
)
