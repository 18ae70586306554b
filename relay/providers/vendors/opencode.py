"""OpenCode Zen. Some of its models have chat completions, some responses, some another vendor's API only.

Source: OpenCode's documentation of Zen and the source of its gateway, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="opencode",
    label="OpenCode Zen",
    position=440,
    base_url="https://opencode.ai/zen/v1",
    apis=CHAT | {"responses"},
    failures=(
        # What a provider behind it said.
        rule(FailureClass.TRANSIENT, "401 402 403", text=r"^error from provider\b"),
        rule(FailureClass.KEY_DEAD, "401", "autherror"),
        rule(FailureClass.BILLING, "401", "creditserror"),
        rule(FailureClass.QUOTA_WINDOW, "401", "monthlylimiterror userlimiterror", resets="month"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "401", "modelerror"),
        rule(FailureClass.RATE, "429", "ratelimiterror freeusagelimiterror"),
    ),
)
