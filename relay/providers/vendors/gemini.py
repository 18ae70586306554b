"""Google Gemini. The relay does not speak its generateContent API, so that no channel can be made for it.

Source: the Gemini API's reference and error codes, read in November 2026.
"""

from __future__ import annotations

from typing import Final

from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor

VENDOR: Final = Vendor(
    key="gemini",
    label="Google Gemini",
    position=50,
    protocol="",
    reasoning="unlisted",  # of its API in OpenAI's form
    failures=(
        rule(FailureClass.KEY_DEAD, "400 403", "api_key_invalid"),
        rule(FailureClass.KEY_DEAD, "400", text=r"^api key (not valid|expired)"),
        # Also for files that are not ready.
        rule(
            FailureClass.CONFIG,
            "400",
            "failed_precondition",
            r"^user location is not supported|^gemini api free tier is not available|^please enable billing",
        ),
        rule(FailureClass.BILLING, "402", "resource_exhausted"),
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
        rule(FailureClass.QUOTA_WINDOW, "429", "quota_per_day", resets="midnight:America/Los_Angeles"),
        rule(FailureClass.RATE, "429", "resource_exhausted quota_per_minute"),
        rule(FailureClass.OVERLOAD, "503", "unavailable"),
        rule(FailureClass.TRANSIENT, "500 504", "internal deadline_exceeded"),
        rule(FailureClass.CLIENT, "400", "invalid_argument"),
    ),
    # What its own SDK-less clients write into it is of its own: `google`, which names no model.
    parameters={"extra_body": "forward"},
    price_search={"google": 30},
)
