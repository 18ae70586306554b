"""ChatGPT plans of people who sign in with their own account.

Source: OpenAI's pages on signing in with ChatGPT for locally hosted apps, and openai/codex, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.failures import FailureClass, rule
from relay.providers.plans.shapes import Shape
from relay.providers.vendor import Vendor

_ISSUER: Final = "https://auth.openai.com"
_CLAIMS: Final = "https://api.openai.com"

VENDOR: Final = Vendor(
    key="chatgpt",
    telemetry_name="openai",
    label="ChatGPT plan of one user",
    position=21,
    base_url="https://api.openai.com/v1",
    needs_key=False,
    apis=frozenset(("responses",)),
    session_header="session-id",
    output_field="max_output_tokens",
    least_output=16,
    late_system=True,
    plans=(
        Shape(
            key="siwc",
            issuer=_ISSUER,
            namespace=_CLAIMS,
            base_url="https://api.openai.com/v1",
            scope="openid profile email offline_access resource.invoke chatgpt.tokens.use.direct",
            first_client="dynamic_agent_client",
            resource="https://api.openai.com/v1",
            needed_scope="chatgpt.tokens.use.direct",
            tools_as_item=True,
        ),
        Shape(
            key="codex",
            issuer=_ISSUER,
            namespace=_CLAIMS,
            base_url="https://chatgpt.com/backend-api/codex",
            scope="openid profile email offline_access",
            callback_host="localhost",
            callback_port=1455,
            extra=(("id_token_add_organizations", "true"),),
            refresh_scope="openid profile email",
            has_device=True,
            discovers=False,
            account_header="chatgpt-account-id",
            session_header="session_id",
            versioned=True,
            demands_whole=True,
        ),
    ),
    refused_limits={
        "responses": "max_output_tokens",
        "chat.completions": "max_completion_tokens",
        "completions": "max_tokens",
    },
    parameters={
        **dict.fromkeys(
            (
                "temperature", "top_p", "presence_penalty", "frequency_penalty", "user", "safety_identifier", "seed",
                "metadata", "truncation", "prompt_cache_retention", "top_logprobs", "max_tool_calls", "moderation",
                "multi_agent", "conversation",
            ),
            "drop",
        ),
        "responses/max_output_tokens": "drop",
        "responses/prompt": "refuse",
        "logprobs": "refuse:false",
        "responses/background": "drop",  # the portal makes responses in the background itself
    },
    failures=(
        rule(FailureClass.RATE, "429", "usage_limit_reached rate_limit_reached usage_limit_exceeded"),
        rule(FailureClass.CONTENT, "400", "cyber_policy"),
        rule(FailureClass.OVERLOAD, "503", "server_is_overloaded slow_down"),
    ),
)  # fmt: skip
