"""Mistral.

Source: Mistral's API reference and the errors that its SDK knows, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import AUDIO, CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="mistral",
    telemetry_name="mistral_ai",
    label="Mistral",
    position=100,
    base_url="https://api.mistral.ai/v1",
    apis=CHAT | {"responses", "responses.input_tokens", "embeddings", "moderations"} | (AUDIO - {"audio.translations"}),
    stream_usage=False,
    parameters={
        "seed": "rename:random_seed",
        "max_completion_tokens": "rename:max_tokens",
        "logit_bias": "drop",
        "user": "drop",
        "store": "drop",
        "stream_options": "drop",
        "messages[].name": "drop",
    },
    strips_nulls=True,
    failures=(
        rule(FailureClass.KEY_DEAD, "401"),
        rule(FailureClass.BILLING, "402"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "400 404", "1500 unknown_model invalid_model"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "400", text=r"^invalid model\b"),
        rule(FailureClass.CLIENT, "422"),
        rule(FailureClass.OVERLOAD, "503"),
    ),
    price_list="mistral",
    price_search={"mistral": 80},
)
