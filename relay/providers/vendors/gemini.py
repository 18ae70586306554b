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
    failures=(
        rule(FailureClass.KEY_DEAD, "400 403", "api_key_invalid"),
        rule(FailureClass.KEY_DEAD, "400", text=r"api key (not valid|expired)"),
        rule(FailureClass.CONFIG, "400", "failed_precondition"),
        rule(FailureClass.BILLING, "402", "resource_exhausted"),
        rule(FailureClass.CONFIG, "403", "service_disabled"),
        rule(FailureClass.KEY_DEAD, "403", "permission_denied", r"leaked|suspended"),
        rule(FailureClass.KEY_DEAD, "403", "consumer_suspended api_key_service_blocked"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "404", "not_found"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "429", text=r"limit: 0\b", cooldown=86_400.0),
        rule(FailureClass.QUOTA_WINDOW, "429", "quota_per_day", resets="midnight:America/Los_Angeles"),
        rule(FailureClass.RATE, "429", "resource_exhausted quota_per_minute"),
        rule(FailureClass.OVERLOAD, "503", "unavailable"),
        rule(FailureClass.TRANSIENT, "500 504", "internal deadline_exceeded"),
        rule(FailureClass.CLIENT, "400", "invalid_argument"),
    ),
    price_search={"google": 30},
)
