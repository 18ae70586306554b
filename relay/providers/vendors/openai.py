"""OpenAI, and servers that are compatible with it.

Source: OpenAI's API reference and error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import OPENAI
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import PromptCache, Vendor

# How a GPT is named in links to it, and the family of models as which other relays serve GPTs.
GPT_LINK: Final = "g-"
GPT_FAMILY: Final = "gpt-4-gizmo-"

VENDOR: Final = Vendor(
    key="openai",
    label="OpenAI, or compatible with it",
    position=20,
    base_url="https://api.openai.com/v1",
    apis=OPENAI,
    stores=True,
    output_field="max_completion_tokens",
    least_output=16,
    late_system=True,
    # Source: its guide on prompt caching: five to ten minutes without use, a day with extended retention.
    prompt_cache=PromptCache(least=1024, seconds=300.0, longest=86_400.0),
    failures=(
        rule(
            FailureClass.CONTENT,
            "400 403",
            "content_policy_violation moderation_blocked cyber_policy bio_policy content_filter "
            "image_content_policy_violation misalignment_policy_violation potentially_unintended_data_access "
            "potentially_unintended_data_transfer potentially_unintended_destructive_activity",
        ),
        rule(FailureClass.CONTENT, "400", "invalid_prompt", r"policy|safety"),
        rule(FailureClass.CONFIG, "401 403", "unsupported_country_region_territory ip_not_authorized"),
        rule(
            FailureClass.CONFIG,
            "401 403",
            text=r"^(your )?ip (address )?(\S+ )?(is )?not authori[sz]ed"
            r"|^country, region,? or territory not supported",
        ),
        # A restricted key, which may lack the scope of one API or model only.
        rule(
            FailureClass.KEY_FORBIDDEN_MODEL,
            "401 403",
            text=r"^you have insufficient permissions|^missing scopes",
            doubtful=True,
        ),
        rule(FailureClass.KEY_DEAD, "401 403", "invalid_api_key account_deactivated"),
        rule(
            FailureClass.KEY_DEAD,
            "401",
            text=r"^incorrect api key|^you must be a member of an organi[sz]ation"
            r"|^(your|the) (openai )?account .*deactivated",
        ),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "400 403 404", "model_not_found"),
        rule(
            FailureClass.BILLING,
            "400 402 403 429",
            "insufficient_quota billing_hard_limit_reached billing_not_active credit_balance_exhausted "
            "organization_spend_limit_exceeded project_spend_limit_exceeded organization_usage_limit_exceeded",
        ),
        rule(FailureClass.TOO_LARGE, "429", text=r"^request too large for"),
        rule(FailureClass.OVERLOAD, "503", "server_is_overloaded slow_down"),
        rule(FailureClass.RATE, "429 503", "rate_limit_exceeded slow_down requests tokens"),
    ),
    price_list="openai",
    price_search={"openai": 10},
)
