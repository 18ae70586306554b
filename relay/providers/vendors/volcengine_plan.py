"""Volcengine Ark's coding plan (Doubao), whose addresses are its own: Anthropic's API stands beside OpenAI's.

Source: www.volcengine.com/docs/82379 about the coding plan, and Ark's error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="volcengine_plan",
    label="Volcengine Ark Coding Plan",
    position=141,
    base_url="https://ark.cn-beijing.volces.com/api/coding/v3",
    apis=CHAT | {"messages"},
    paths={"messages": "/../v1/messages"},
)
