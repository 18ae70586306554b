"""Xiaomi MiMo. Its token plans have addresses and keys of their own.

Source: MiMo's error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="xiaomi",
    label="Xiaomi MiMo",
    position=180,
    base_url="https://api.xiaomimimo.com/v1",
    apis=CHAT | {"messages"},
    paths={"messages": "/../anthropic/v1/messages"},
    failures=(rule(FailureClass.BILLING, "402", "insufficient_balance"),),
)
