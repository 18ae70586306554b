"""Moonshot (Kimi).

Source: Moonshot's API reference and error codes (platform.kimi.ai/docs), read in November 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from relay.providers.accounts.balances import Balance, BalanceSource
from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor


def _balance(answers: Sequence[Any]) -> Balance:
    return Balance(Decimal(str(answers[0]["data"]["available_balance"])), "")


VENDOR: Final = Vendor(
    key="moonshot",
    label="Moonshot (Kimi)",
    position=70,
    base_url="https://api.moonshot.ai/v1",
    apis=CHAT | {"responses", "messages"},
    paths={"messages": "/../anthropic/v1/messages"},
    parameters={
        "logit_bias": "drop",
        "logprobs": "refuse:false",
        "top_logprobs": "refuse",
        "store": "drop",
        "metadata": "drop",
        "messages/metadata": "forward",
    },
    failures=(
        rule(FailureClass.BILLING, "429 403", "exceeded_current_quota_error"),
        rule(FailureClass.BILLING, "403", text=r"^your account\b.{0,150}\binsufficient balance"),
        rule(FailureClass.OVERLOAD, "429", "engine_overloaded_error", cooldown=10.0),
        rule(FailureClass.RATE, "429", "rate_limit_reached_error"),
        rule(FailureClass.CONTENT, "400", "content_filter"),
        rule(FailureClass.KEY_DEAD, "401", "invalid_authentication_error incorrect_api_key_error"),
        # Both also for files.
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "404", "resource_not_found_error", r"^not found the model"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "403", "permission_denied_error", doubtful=True),
    ),
    balance=BalanceSource(("/users/me/balance",), _balance),
    price_list="moonshotai",
    price_search={"moonshotai": 50},
)
