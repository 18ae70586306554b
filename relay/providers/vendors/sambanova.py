"""SambaNova. It calls its rate limits `insufficient_quota`.

Source: SambaNova's API reference and error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="sambanova",
    label="SambaNova",
    position=452,
    base_url="https://api.sambanova.ai/v1",
    apis=CHAT | {"responses", "completions", "embeddings", "audio.transcriptions", "audio.translations"},
    failures=(
        rule(FailureClass.KEY_DEAD, "401", "invalid_authentication"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "400 404 410", "model_not_found model_deprecated"),
        rule(FailureClass.RATE, "429", "insufficient_quota"),
        rule(FailureClass.OVERLOAD, "429 503", "queue_full maintenance"),
    ),
)
