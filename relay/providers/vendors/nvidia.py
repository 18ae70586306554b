"""NVIDIA's hosted NIMs. Its reranking is of its own form.

Source: NVIDIA's API reference, and its errors as they are reported, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="nvidia",
    label="NVIDIA NIM",
    position=340,
    base_url="https://integrate.api.nvidia.com/v1",
    apis=CHAT | {"completions", "embeddings"},
    failures=(
        # A model that the account may not call is a function that it does not have.
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "404", text=r"^function (…$|not found for account)"),
    ),
)
