"""ModelScope.

Source: the address that LiteLLM 1.110.2 and models.dev have for it, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="modelscope",
    label="ModelScope",
    position=484,
    base_url="https://api-inference.modelscope.cn/v1",
    apis=CHAT,
)
