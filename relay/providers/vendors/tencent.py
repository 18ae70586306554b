"""Tencent TokenHub (Hunyuan): its address outside China.

Source: TokenHub's API reference (cloud.tencent.com/document/product/1823), and LiteLLM 1.110.2, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="tencent",
    label="Tencent TokenHub (Hunyuan)",
    position=150,
    base_url="https://tokenhub-intl.tencentcloudmaas.com/v1",
    apis=CHAT | {"messages"},
)
