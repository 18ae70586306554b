"""Cloudflare Workers AI.

Source: the error codes of Workers AI, of July 2026, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="cloudflare",
    label="Cloudflare Workers AI",
    position=330,
    address_form="https://api.cloudflare.com/client/v4/accounts/{account}/ai/v1",
    apis=CHAT | {"responses", "embeddings"},
    failures=(
        rule(FailureClass.KEY_DEAD, "403", "3023"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "400 403 404", "5007 5016 5018 3041 3042"),
        rule(FailureClass.QUOTA_WINDOW, "429", "3036", resets="midnight:UTC"),
        rule(FailureClass.OVERLOAD, "429", "3040"),
    ),
    price_list="cloudflare",
)
