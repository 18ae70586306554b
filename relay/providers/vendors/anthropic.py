"""Anthropic.

Source: Anthropic's API reference and the errors that its SDKs know, read in November 2026.
"""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Final

from relay.providers.accounts.bills import BilledDay, BillPage, BillSource, amount_of, next_page
from relay.providers.apis import MESSAGES
from relay.providers.credentials.static import X_API_KEY
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import PromptCache, Vendor

CLAUDE_CACHE: Final = PromptCache(
    least=512,
    least_of=(
        ("haiku-4-5", 4096),
        ("opus-4-5", 4096),
        ("opus-4-6", 4096),
        ("sonnet", 1024),
        ("opus-4", 1024),
        ("claude-3", 1024),
    ),
    seconds=300.0,
    longest=3600.0,
    marked=True,
)
_VERSION: Final = "2023-06-01"


def _report_query(first: date, last: date, workspace: str, page: str) -> list[tuple[str, str]]:
    query = [
        ("starting_at", f"{first.isoformat()}T00:00:00Z"),
        ("ending_at", f"{(last + timedelta(days=1)).isoformat()}T00:00:00Z"),
        ("bucket_width", "1d"),
        ("limit", "31"),
    ]
    query += [("group_by[]", "workspace_id")] if workspace else []
    return query + ([("page", page)] if page else [])


def _report(answer: Any, workspace: str) -> BillPage:
    """Amounts are hundredths of the currency. What the default workspace was billed has no workspace."""
    wanted = None if workspace == "default" else workspace
    parts = tuple(
        BilledDay(
            date.fromisoformat(bucket["starting_at"][:10]),
            amount_of(result["amount"]) / Decimal(100),
            str(result.get("currency") or "USD").upper()[:8],
        )
        for bucket in answer["data"]
        for result in bucket["results"]
        if not workspace or result["workspace_id"] == wanted
    )
    return BillPage(parts, next_page(answer))


VENDOR: Final = Vendor(
    key="anthropic",
    label="Anthropic",
    position=40,
    protocol="anthropic",
    base_url="https://api.anthropic.com/v1",
    credentials=X_API_KEY,
    headers={"anthropic-version": _VERSION},
    # A page of them; the API has twenty on a page otherwise.
    models_path="/models?limit=1000",
    apis=MESSAGES,
    signs_thinking=True,
    # Source: its page on prompt caching, read in November 2026. Every use begins the time anew.
    prompt_cache=CLAUDE_CACHE,
    # The first two make an answer dearer than its model's price. A tier is capacity that the account has bought before.
    parameters={
        "messages/speed": 'refuse:"standard"',
        "messages/inference_geo": 'refuse:"global"',
        "messages/service_tier": "forward",
    },
    failures=(
        rule(FailureClass.KEY_DEAD, "400 403", "organization_on_hold"),
        rule(FailureClass.KEY_DEAD, "400 403", text=r"^(this|your) organi[sz]ation (has been disabled|is on hold)"),
        rule(FailureClass.BILLING, "400", text=r"^your credit balance is too low"),
        rule(
            FailureClass.BILLING,
            "400",
            text=r"^you have reached your specified (workspace )?api usage limits",
            resets="month",
        ),
        rule(FailureClass.BILLING, "402", "billing_error"),
        rule(FailureClass.BILLING, "429", "enforced_spend_limit_reached contract_spend_limit_reached", resets="month"),
        rule(FailureClass.CLIENT, "400 413", "request_too_large"),
        rule(FailureClass.KEY_DEAD, "401", "authentication_error"),
        rule(FailureClass.CONFIG, "403", "unsupported_region"),
        # Also for files of others and for betas.
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "403", "permission_error", doubtful=True),
        # Also for files that are gone.
        rule(FailureClass.KEY_FORBIDDEN_MODEL, "404", "not_found_error", r"^model:"),
        rule(FailureClass.OVERLOAD, "529 503 500", "overloaded_error", cooldown=15.0),
        rule(FailureClass.RATE, "429", "rate_limit_error ramp_limit_exceeded"),
        rule(FailureClass.TRANSIENT, "500 504", "api_error timeout_error"),
    ),
    price_list="anthropic",
    price_multiples={"cache_write_1h": 2},
    price_search={"anthropic": 20},
    # Source: its reference of the Admin API's cost report, read in November 2026. The priority tier is not in it.
    bill=BillSource(
        path="/organizations/cost_report",
        query=_report_query,
        read=_report,
        headers=lambda secret: {"x-api-key": secret, "anthropic-version": _VERSION},
        key_form="sk-ant-admin…",
        scope_word="workspace",
        days=90,
    ),
)
