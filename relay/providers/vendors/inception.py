"""Inception (Mercury).

Source: Inception's OpenAPI document and error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="inception",
    label="Inception (Mercury)",
    position=250,
    base_url="https://api.inceptionlabs.ai/v1",
    apis=CHAT | {"completions"},
    paths={"completions": "/fim/completions"},  # with a prompt and a suffix, as OpenAI's
    failures=(
        rule(FailureClass.BILLING, "402", "billing_error"),
        rule(FailureClass.KEY_DEAD, "401", "authentication_error"),
    ),
)
