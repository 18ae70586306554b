"""vLLM.

Its realtime API has a protocol of its own: `relay.protocols.realtime.speech`.

Source: vLLM's reference of its OpenAI-compatible server, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import MESSAGES, OPENAI_COMPATIBLE
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="vllm",
    label="vLLM",
    position=930,
    needs_key=False,
    apis=OPENAI_COMPATIBLE | MESSAGES | {"responses"},
)
