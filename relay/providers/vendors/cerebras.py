"""Cerebras.

Source: Cerebras's error codes, rate limits and SDK 1.91, and its errors as they are reported, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="cerebras",
    label="Cerebras",
    position=451,
    base_url="https://api.cerebras.ai/v1",
    apis=CHAT | {"completions"},
    output_field="max_completion_tokens",
    failures=(
        rule(FailureClass.KEY_DEAD, "401", "wrong_api_key"),
        rule(
            FailureClass.QUOTA_WINDOW,
            "429",
            "token_quota_exceeded request_quota_exceeded",
            r"^(tokens|requests) per day limit exceeded",
            resets="midnight:UTC",
        ),
        rule(FailureClass.RATE, "429", "token_quota_exceeded request_quota_exceeded"),
    ),
    price_list="cerebras",
)
