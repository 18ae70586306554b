"""Cohere: its compatibility API, and its own for reranking.

Source: Cohere's documentation of the compatibility API, its API reference and error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="cohere",
    label="Cohere",
    position=200,
    base_url="https://api.cohere.com/compatibility/v1",
    apis=CHAT | {"embeddings", "audio.transcriptions", "rerank"},
    paths={"rerank": "/../../v2/rerank"},
    parameters={
        "chat/store": "drop",
        "chat/metadata": "drop",
        "chat/logit_bias": "drop",
        "chat/top_logprobs": "refuse",
        "chat/n": "refuse:1",
        "chat/modalities": 'refuse:["text"]',
        "chat/prediction": "drop",
        "chat/audio": "refuse",
        "chat/service_tier": "drop",
        "chat/parallel_tool_calls": "drop",
        "embeddings/dimensions": "refuse",
        "embeddings/user": "drop",
        "audio/prompt": "drop",
        "audio/chunking_strategy": "drop",
    },
    failures=(
        rule(
            FailureClass.QUOTA_WINDOW,
            "429",
            text=r"^you are using a trial key, which is limited to [\d,]+ api calls / month",
            resets="month",
        ),
        rule(FailureClass.BILLING, "402", text=r"^maximum billing reached for this api key", resets="month"),
        rule(FailureClass.CONTENT, "498"),
    ),
    price_list="cohere",
    price_search={"cohere": 100},
)
