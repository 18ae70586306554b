"""Google Gemini. Its API in OpenAI's form is served by channels of the vendor “OpenAI, or compatible with it”.

Source: the Gemini API's reference and error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.apis import GEMINI, INTERACTIONS
from relay.providers.credentials.static import X_GOOG_API_KEY
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import PromptCache, Vendor

VENDOR: Final = Vendor(
    key="gemini",
    telemetry_name="gcp.gemini",
    label="Google Gemini",
    position=50,
    protocol="gemini",
    base_url="https://generativelanguage.googleapis.com/v1beta",
    credentials=X_GOOG_API_KEY,
    # A page of them; the API has fifty on a page otherwise.
    models_path="/models?pageSize=1000",
    apis=GEMINI | INTERACTIONS,
    # Source: its page on context caching, October 2026, which has no word of how long.
    prompt_cache=PromptCache(least=2048, least_of=(("gemini-2.5", 2048), ("gemini-3", 4096), ("gemini-4", 4096))),
    failures=(
        rule(FailureClass.KEY_DEAD, "400 403", "api_key_invalid"),
        rule(FailureClass.KEY_DEAD, "401", "authentication"),  # of the Interactions API, as other words without blanks
        rule(FailureClass.KEY_DEAD, "400", text=r"^api key (not valid|expired)"),
        # Also for files that are not ready.
        rule(
            FailureClass.CONFIG,
            "400",
            "failed_precondition",
            r"^user location is not supported|^gemini api free tier is not available|^please enable billing",
        ),
        rule(FailureClass.BILLING, "402", "resource_exhausted payment_required"),
        rule(FailureClass.CONFIG, "403", "service_disabled"),
        rule(
            FailureClass.KEY_DEAD,
            "403",
            "permission_denied",
            r"^your api key was reported as leaked|^consumer .{0,80}has been suspended",
        ),
        rule(FailureClass.KEY_DEAD, "403", "consumer_suspended api_key_service_blocked"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "404", "model_not_found"),
        # Also for files and cached contents.
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "404", "not_found", r"^(publisher )?model|^models/"),
        rule(FailureClass.BILLING, "429", text=r"^your prepayment credits are depleted"),
        rule(
            FailureClass.KEY_FORBIDDEN_MODEL,
            "429",
            text=r"^(quota exceeded|you exceeded your current quota)\b.*\blimit: 0\b",
            cooldown=86_400.0,
        ),
        rule(FailureClass.QUOTA_WINDOW, "429", "quota_per_day quota_exceeded", resets="midnight:America/Los_Angeles"),
        rule(FailureClass.RATE, "429", "resource_exhausted quota_per_minute"),
        rule(FailureClass.OVERLOAD, "503", "unavailable"),
        rule(FailureClass.TRANSIENT, "500 504", "internal deadline_exceeded"),
        rule(FailureClass.CLIENT, "400", "invalid_argument"),
    ),
    # Answers of other tiers have other prices than their model's.
    parameters={
        "generate_content/serviceTier": "drop",
        "generate_content/service_tier": "drop",
        "interactions/service_tier": "drop",
    },
    price_list="google",
    price_search={"google": 30},
)
