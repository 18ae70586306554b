"""xAI.

Source: xAI's API reference and error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="xai",
    telemetry_name="x_ai",
    label="xAI",
    position=110,
    base_url="https://api.x.ai/v1",
    apis=CHAT | {"completions", "images.generations", "responses", "realtime"},
    stores=True,
    reasoning="beside",
    limits_thinking=False,
    cost_member="cost_in_usd_ticks",
    # 422 "did not match any variant of untagged enum ModelInput", for items of an answer that come back (August 2026).
    strips_nulls=True,
    parameters={
        "messages[].name": "drop",
        "tools[].function.strict": "drop",
        "logit_bias": "drop",
        "chat/store": "drop",
        "chat/metadata": "drop",
    },
    failures=(
        rule(FailureClass.CONTENT, "403", text=r"\b(content violates|safety|usage guidelines)\b"),
        rule(
            FailureClass.BILLING,
            "403 429",
            text=r"^your (newly created )?team\b.{0,150}\b(credits|licen[cs]es?|spending limit)\b",
        ),
        rule(FailureClass.KEY_DEAD, "400 401", text=r"^(incorrect|invalid) api key"),
    ),
    price_list="x-ai",
    price_search={"x-ai": 90},
)
