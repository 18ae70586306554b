"""Scaleway's Generative APIs.

Source: the documentation of Scaleway's Generative APIs, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="scaleway",
    label="Scaleway",
    position=360,
    base_url="https://api.scaleway.ai/v1",
    apis=CHAT | {"responses", "embeddings", "audio.transcriptions", "rerank"},
    parameters={
        "chat/frequency_penalty": "drop",
        "chat/n": "refuse:1",
        "chat/top_logprobs": "refuse",
        "chat/logit_bias": "drop",
        "chat/user": "drop",
    },
)
