"""FriendliAI.

Source: Friendli's OpenAPI document, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="friendli",
    label="FriendliAI",
    position=479,
    base_url="https://api.friendli.ai/serverless/v1",
    apis=CHAT | {"responses", "completions", "audio.transcriptions"},
)
