"""OpenRouter.

Source: OpenRouter's API reference and error codes, read in November 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any, Final

from relay.providers.accounts.balances import Balance, BalanceSource
from relay.providers.accounts.bills import BilledDay, BillPage, BillSource, amount_of, bearer
from relay.providers.apis import CHAT
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import Vendor


def _balance(answers: Sequence[Any]) -> Balance:
    """What the key may still spend; a key without a limit does not say what its account has."""
    return Balance(Decimal(str(answers[0]["data"]["limit_remaining"])), "USD")


def _activity(answer: Any, _key: str) -> BillPage:
    """What was taken from the account's credits, and what its own keys at vendors were charged there."""
    return BillPage(
        tuple(
            BilledDay(
                date.fromisoformat(row["date"][:10]),
                amount_of(row["usage"]) + amount_of(row.get("byok_usage_inference") or 0),
                "USD",
            )
            for row in answer["data"]
        )
    )


VENDOR: Final = Vendor(
    key="openrouter",
    label="OpenRouter",
    position=400,
    base_url="https://openrouter.ai/api/v1",
    apis=CHAT
    | {
        "responses",
        "messages",
        "completions",
        "embeddings",
        "images.generations",
        "audio.speech",
        "audio.transcriptions",
    },
    cost_member="cost",
    cache_marks=frozenset(("type", "ttl")),
    parameters={"store": "drop"},
    failures=(
        # What a provider behind it said, of a key of OpenRouter's or of the account's own for that provider.
        rule(FailureClass.TRANSIENT, "401 402", text=r"^provider returned error"),
        # Larger than what the account can pay now; smaller ones are served.
        rule(FailureClass.TOO_LARGE, "402", "weight_exceeds_budget"),
        rule(FailureClass.RATE, "402", "openrouter_in_flight_budget in_flight_budget_exhausted"),
        rule(FailureClass.BILLING, "402"),
        rule(
            FailureClass.QUOTA_WINDOW,
            "403",
            "openrouter_key_limit openrouter_workspace_budget openrouter_guardrail_budget",
            resets="midnight:UTC",
        ),
        rule(
            FailureClass.QUOTA_WINDOW,
            "403",
            text=r"^(key|workspace|guardrail|budget|spend(ing)?) (limit|budget)?.{0,20}(limit |budget )?exceeded",
            resets="midnight:UTC",
        ),
        rule(FailureClass.CONTENT, "400 403", "content_policy_violation content_filter"),
        rule(FailureClass.CONTENT, "403", text=r"moderation|guardrail|flagged"),
        rule(
            FailureClass.QUOTA_WINDOW,
            "429",
            text=r"^rate limit exceeded: (free-models-per-day|limit_rpd)",
            resets="midnight:UTC",
        ),
        rule(
            FailureClass.CLIENT,
            "400 413",
            "context_length_exceeded max_tokens_exceeded token_limit_exceeded string_too_long invalid_prompt "
            "invalid_request invalid_image image_too_large",
        ),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "400 404", "model_not_found"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "400", text=r"^\S{1,120} is not a valid model id"),
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "404", text=r"^no endpoints found for\b"),
        rule(FailureClass.KEY_DEAD, "401"),
        rule(FailureClass.RATE, "429", "rate_limit_exceeded"),
        rule(FailureClass.OVERLOAD, "503"),
    ),
    balance=BalanceSource(("/key",), _balance),
    # Source: its reference of user activity, read in November 2026: the last 30 whole days in UTC, on one page.
    bill=BillSource(
        path="/activity",
        query=lambda first, last, key, page: [("api_key_hash", key)] if key else [],
        read=_activity,
        headers=bearer,
        key_form="sk-or-v1-…",
        scope_word="hash of a key",
        days=30,
    ),
    price_list="openrouter",
    price_search={"openrouter": 140},
)
