"""Ollama, on this machine unless the channel says otherwise.

Source: Ollama's API reference, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="ollama",
    label="Ollama",
    position=910,
    base_url="http://127.0.0.1:11434/v1",
    needs_key=False,
    apis=CHAT
    | {
        "responses",
        "messages",
        "completions",
        "embeddings",
        "images.generations",
        "audio.speech",
        "audio.transcriptions",
    },
    parameters={
        "logit_bias": "drop",
        "n": "refuse:1",
        "user": "drop",
        "store": "drop",
        "metadata": "drop",
        "messages/metadata": "forward",
        "service_tier": "drop",
    },
)
