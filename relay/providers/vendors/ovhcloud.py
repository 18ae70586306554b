"""OVHcloud's AI Endpoints.

Source: the address and APIs that LiteLLM 1.110.2 and models.dev have for it, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="ovhcloud",
    label="OVHcloud AI Endpoints",
    position=370,
    base_url="https://oai.endpoints.kepler.ai.cloud.ovh.net/v1",
    apis=CHAT | {"embeddings", "audio.transcriptions"},
    price_list="ovhcloud",
)
