"""Alibaba DashScope (Qwen): its OpenAI-compatible mode for customers outside China.

Customers also have addresses of their own, which Alibaba recommends:
https://{workspace}.{region}.maas.aliyuncs.com/compatible-mode/v1, for keys of that region.

Source: Model Studio's API reference and error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="dashscope",
    label="Alibaba DashScope (Qwen)",
    position=80,
    base_url="https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
    apis=CHAT | {"responses", "messages", "completions", "embeddings", "rerank"},
    paths={"rerank": "/../../compatible-api/v1/reranks", "messages": "/../../apps/anthropic/v1/messages"},
    cache_marks=frozenset(("type",)),
    limits_thinking=False,  # max_tokens; max_completion_tokens does, which not every model takes
    failures=(
        rule(FailureClass.BILLING, "400 403", "arrearage allocationquota.freetieronly"),
        rule(FailureClass.BILLING, "403 429", text=r"^(the )?free (allocated )?quota"),
        rule(FailureClass.CONTENT, "400", "data_inspection_failed datainspectionfailed"),
        rule(FailureClass.KEY_DEAD, "401 403", "invalidapikey invalid_api_key"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "403", "accessdenied.unpurchased model.accessdenied"),
        # Also for files and applications.
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "403", "accessdenied access_denied", doubtful=True),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "400 404", "modelnotfound model_not_found model_not_supported"),
        rule(
            FailureClass.RATE,
            "429",
            "throttling throttling.ratequota throttling.allocationquota throttling.burstrate "  # its own form
            # OpenAI's form. This is what it calls the limit of tokens per minute.
            "insufficient_quota limit_requests limit_burst_rate",
        ),
        rule(FailureClass.OVERLOAD, "500 503", "modelunavailable"),
        rule(FailureClass.TRANSIENT, "500 503", "internalerror* modelservingerror internal_error"),
    ),
)
