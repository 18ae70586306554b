"""The demo: an upstream inside the portal, for which `relay.providers.demo` answers."""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="demo",
    label="Demo (built in, answers without any upstream)",
    position=10,
    base_url="demo://built-in",
    built_in=True,
    needs_key=False,
    apis=CHAT,
)
