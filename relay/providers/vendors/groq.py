"""Groq.

Source: Groq's API reference and error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import AUDIO, CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import PromptCache, Vendor

VENDOR: Final = Vendor(
    key="groq",
    label="Groq",
    position=450,
    base_url="https://api.groq.com/openai/v1",
    apis=CHAT | AUDIO | {"responses", "embeddings"},
    parameters={
        "chat/logprobs": "refuse:false",
        "chat/top_logprobs": "refuse",
        "chat/logit_bias": "drop",
        "chat/n": "refuse:1",
        "messages[].name": "drop",
        "store": "drop",
        "metadata": "drop",
        "function_call": "drop",
    },
    strips_nulls=True,
    # Source: its page on prompt caching, read in November 2026: two hours without use.
    prompt_cache=PromptCache(seconds=7200.0, longest=7200.0),
    failures=(
        rule(FailureClass.KEY_DEAD, "400 403", "organization_restricted"),
        rule(
            FailureClass.KEY_FORBIDDEN_MODEL,
            "400 403 404",
            "model_decommissioned model_not_found model_terms_required model_permission_blocked_org "
            "model_permission_blocked_project",
        ),
        rule(FailureClass.TOO_LARGE, "413", text=r"tokens per minute|\bTPM\b"),
        rule(
            FailureClass.QUOTA_WINDOW,
            "429",
            "rate_limit_exceeded",
            r"^rate limit reached\b.*(per day|\b[TR]PD\b)",
            resets="midnight:UTC",
        ),
        rule(FailureClass.RATE, "429", "rate_limit_exceeded"),
        rule(FailureClass.OVERLOAD, "498"),
        # The model's own mistake, which requests can provoke.
        rule(FailureClass.TRANSIENT, "400", "tool_use_failed json_validate_failed", doubtful=True),
    ),
    price_list="groq",
    price_search={"groq": 120},
)
