"""Azure OpenAI with its v1 API, where the model is the name of a deployment.

Source: Azure OpenAI's REST reference and error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import OPENAI
from relay.providers.credentials.static import API_KEY
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor
from relay.providers.vendors import openai

VENDOR: Final = Vendor(
    key="azure",
    telemetry_name="azure.ai.openai",
    label="Azure OpenAI (v1 API)",
    position=30,
    version_path="/openai/v1",
    address_form="https://{resource}.openai.azure.com/openai/v1",
    credentials=API_KEY,
    apis=OPENAI - {"moderations", "rerank"},
    stores=True,
    output_field="max_completion_tokens",
    least_output=16,
    late_system=True,
    # Source: its page on prompt caching, read in November 2026; a day with extended retention.
    prompt_cache=openai.VENDOR.prompt_cache,
    failures=(
        rule(FailureClass.CONTENT, "400", "content_filter responsibleaipolicyviolation content_policy_violation"),
        rule(FailureClass.BILLING, "403", text=r"^out of call volume quota|^(your )?.{0,40}exceeded call volume"),
        rule(FailureClass.CONFIG, "403", text=r"^access denied due to virtual network|^public access is disabled"),
        rule(
            FailureClass.KEY_DEAD,
            "401",
            text=r"^access denied|^((the|your) )?(access )?token (is|has) expired|^invalid subscription key",
        ),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "404", "deploymentnotfound"),
        rule(FailureClass.CONFIG, "404", "404", r"^resource not found$"),
        rule(FailureClass.OVERLOAD, "429", "nocapacity"),
        rule(FailureClass.RATE, "429", "ratelimitreached 429 too_many_requests"),
        *openai.VENDOR.failures,
    ),
    price_list="azure",
)
