"""Hugging Face's router to inference providers. A model may name its provider behind a colon.

Source: Hugging Face's documentation of Inference Providers, and its errors as they are reported, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="huggingface",
    label="Hugging Face",
    position=420,
    base_url="https://router.huggingface.co/v1",
    apis=CHAT | {"responses"},
)
