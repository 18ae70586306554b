"""What is left on an account at another relay, as the several kinds of relays say it. Pure.

Source: one-api's and new-api's controllers, sub2api's `/v1/usage` as its clients read it, LiteLLM's key management and
this product's docs/api.md, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from relay.providers.accounts.balances import Balance, BalanceSource

_UNITS: Final = Decimal(500_000)  # of new-api's quota in a USD


def _billing(answers: Sequence[Any]) -> Balance:
    """In one-api's form: a limit in USD, and what is used in hundredths of a USD."""
    return Balance(Decimal(str(answers[0]["hard_limit_usd"])) - Decimal(str(answers[1]["total_usage"])) / 100, "USD")


def _usage(answers: Sequence[Any]) -> Balance:
    """This product's, where the tightest limit counts; or sub2api's."""
    (found,) = answers
    if "limits" in found:
        return Balance(min(Decimal(one["left_usd"]) for one in found["limits"] if one["left_usd"] is not None), "USD")
    return Balance(Decimal(str(found["remaining"])), str(found.get("unit") or "USD"))


def _token(answers: Sequence[Any]) -> Balance:
    """new-api's, of the token itself; one without a limit says nothing of the account."""
    data = answers[0]["data"]
    if data.get("unlimited_quota"):
        raise ValueError
    return Balance(Decimal(str(data["total_available"])) / _UNITS, "USD")


def _account(answers: Sequence[Any]) -> Balance:
    """new-api's and one-api's, where the key is an access token of the account."""
    return Balance(Decimal(str(answers[0]["data"]["quota"])) / _UNITS, "USD")


def _key(answers: Sequence[Any]) -> Balance:
    """LiteLLM's, of a key with a budget."""
    info = answers[0]["info"]
    return Balance(Decimal(str(info["max_budget"])) - Decimal(str(info["spend"])), "USD")


BILLING: Final = BalanceSource(("/dashboard/billing/subscription", "/dashboard/billing/usage"), _billing)
OTHERS: Final = (
    BalanceSource(("/usage",), _usage),
    BalanceSource(("//api/usage/token/",), _token),
    BalanceSource(("//api/user/self",), _account),
    BalanceSource(("//key/info",), _key),
)
