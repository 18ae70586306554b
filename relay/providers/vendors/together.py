"""Together.

Source: Together's API reference, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import OPENAI_COMPATIBLE
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="together",
    label="Together",
    position=470,
    base_url="https://api.together.ai/v1",
    apis=OPENAI_COMPATIBLE - {"moderations", "realtime", "realtime.calls", "images.variations"},
    failures=(
        # It answers 403 to a request that is too long for the model.
        rule(FailureClass.CLIENT, "403", text=r"token count|context length|max_(new_)?tokens"),
    ),
    price_list="together",
    price_search={"together": 130},
)
