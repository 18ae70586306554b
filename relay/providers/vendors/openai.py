"""OpenAI, and servers that are compatible with it.

Source: OpenAI's API reference and error codes, read in November 2026.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from relay.providers.accounts.bills import BilledDay, BillPage, BillSource, amount_of, bearer, next_page
from relay.providers.apis import OPENAI
from relay.providers.failures import FailureClass, rule
from relay.providers.vendor import PromptCache, Vendor

# How a GPT is named in links to it, and the family of models as which other relays serve GPTs.
GPT_LINK: Final = "g-"
GPT_FAMILY: Final = "gpt-4-gizmo-"


def _costs_query(first: date, last: date, project: str, page: str) -> list[tuple[str, str]]:
    """Seconds of the first day's beginning and of the last one's end, in UTC."""
    begin = datetime(first.year, first.month, first.day, tzinfo=UTC)
    end = datetime(last.year, last.month, last.day, tzinfo=UTC) + timedelta(days=1)
    query = [
        ("start_time", str(int(begin.timestamp()))),
        ("end_time", str(int(end.timestamp()))),
        ("bucket_width", "1d"),
        ("limit", "31"),
    ]
    query += [("project_ids", project)] if project else []
    return query + ([("page", page)] if page else [])


def _costs(answer: Any, _project: str) -> BillPage:
    parts = tuple(
        BilledDay(
            datetime.fromtimestamp(bucket["start_time"], UTC).date(),
            amount_of(result["amount"]["value"]),
            str(result["amount"].get("currency") or "usd").upper()[:8],
        )
        for bucket in answer["data"]
        for result in bucket["results"]
    )
    return BillPage(parts, next_page(answer))


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
    # Source: its reference of the organization's costs, read in November 2026; keys of projects may not read them.
    bill=BillSource(
        path="/organization/costs",
        query=_costs_query,
        read=_costs,
        headers=bearer,
        key_form="sk-admin-…",
        scope_word="project",
        days=180,
    ),
)
