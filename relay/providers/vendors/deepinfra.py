"""DeepInfra.

Source: DeepInfra's documentation, and its errors as they are reported, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import AUDIO, CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="deepinfra",
    label="DeepInfra",
    position=472,
    base_url="https://api.deepinfra.com/v1/openai",
    apis=CHAT | AUDIO | {"completions", "embeddings", "images.generations"},
    failures=(rule(FailureClass.OVERLOAD, "429", text=r"^model busy\b"),),
)
