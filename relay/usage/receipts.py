"""Builds receipts of requests and the usage of a token as JSON: what was charged and why, and what may still be spent.

Synchronous; called in threads from /v1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.db.models import CharField, OuterRef, Value
from django.db.models.functions import Cast, Concat

from accounts.rights import may, staff_member
from portal.lib import money
from portal.lib.days import PERIODS, Days, bounds
from relay.billing.ledger.movements import BY_PEOPLE
from relay.models import LedgerAccount, LedgerEntry, Token, UsageRecord
from relay.models.price import CLASSES
from relay.models.usage import EARNINGS
from relay.usage import rollup
from relay.usage.limits import SHOWN_DAYS, TokenUse, shared_keys, spending_limits

# Fields of a usage record that count tokens, and the price classes of those tokens.
TOKEN_FIELDS = (
    ("input_tokens", "input"),
    ("cached_input_tokens", "cached_input"),
    ("cached_audio_input_tokens", "cached_audio_input"),
    ("cache_write_tokens", "cache_write"),
    ("cache_write_1h_tokens", "cache_write_1h"),
    ("output_tokens", "output"),
    ("reasoning_tokens", "reasoning"),
    ("audio_input_tokens", "audio_input"),
    ("audio_output_tokens", "audio_output"),
    ("image_input_tokens", "image_input"),
)

_MOST_NAMING = 50  # movements that name one request

# Members of a receipt that say what its user pays.
_AMOUNTS = (
    "price",
    "price_multiplier",
    "reserved_usd",
    "cost_usd",
    "charged_usd",
    "shortfall_usd",
    "paid_by",
    "ledger",
)


def receipt(record: UsageRecord, staff: bool = False, earnings: bool = False) -> dict[str, Any]:
    """Return the receipt of a request as JSON.

    With `staff` it has the channel and the attempts, too; with `earnings` the upstream's cost and the margin.

    Money is in USD, as decimal strings.
    """
    entries = ledger_entries_of(record)
    found: dict[str, Any] = {
        "object": "usage.receipt",
        "request_id": record.request_id,
        "client_request_id": record.client_request_id or None,
        "created": int(record.started_at.timestamp()),
        "endpoint": record.endpoint,
        "app": record.app or None,
        "session": record.session_code or None,
        "model": record.model,
        "streamed": record.streamed,
        "status": record.status,
        "end_reason": record.end_reason,
        "error": {"code": record.error_code, "message": record.error_message} if record.error_code else None,
        "latency_ms": record.latency_ms,
        "first_token_ms": record.first_token_ms,
        "usage": {name: getattr(record, field) for field, name in TOKEN_FIELDS}
        | {"searches": record.searches, "source": record.usage_source},
        "ignored_parameters": record.ignored_parameters,
        "attempts": record.attempts,
        "price": _price_of(record),
        "price_multiplier": money.plain(record.price_multiplier * 1000),
        "reserved_usd": money.plain(record.reserved),
        "cost_usd": money.plain(record.cost),
        "charged_usd": money.plain(record.cost - record.shortfall),
        "shortfall_usd": money.plain(record.shortfall),
        "paid_by": record.payer or None,
        "billing": {"basis": record.billing or None, "explanation": record.billing_reason or None},
        "ledger": [
            {
                "id": entry.pk,
                "kind": entry.kind,
                "from": entry.debit,
                "to": entry.credit,
                "amount_usd": money.plain(entry.amount),
                "at": entry.at.isoformat(),
            }
            for entry in entries
        ],
    }
    if staff:
        found["channel"] = record.channel_id
        found["upstream_model"] = record.upstream_model
        found["attempt_log"] = record.attempt_log
    if earnings:
        found["upstream_cost_usd"] = money.plain(record.upstream_cost)
        found["margin_usd"] = money.plain(record.cost - record.shortfall - record.upstream_cost)
    return found


def ledger_entries_of(record: UsageRecord) -> list[LedgerEntry]:
    """Return the ledger entries of a request, the oldest first."""
    if record.user_id is None:
        return []
    day = Days(settings.TIME_ZONE).of(record.started_at.timestamp())
    return list(
        LedgerEntry.objects.filter(user_id=record.user_id, day=day, request_id=record.request_id).order_by("pk")
    )


def movements_naming(record: UsageRecord) -> list[LedgerEntry]:
    """Return the movements of a request's user whose reason names the request, such as a refund, the oldest first."""
    if record.user_id is None:
        return []
    return list(
        LedgerEntry.objects.filter(
            user_id=record.user_id, token=None, kind__in=BY_PEOPLE, reason__contains=record.request_id
        ).order_by("pk")[:_MOST_NAMING]
    )


def not_given_back(record: UsageRecord, naming: Sequence[LedgerEntry]) -> int:
    """Return what is left to give back of what a request's user paid for it, in nano-USD.

    `naming`: the movements that name it.
    """
    if record.user_id is None or record.payer != "wallet":
        return 0
    given = sum(entry.amount if entry.kind == "top_up" else -entry.amount for entry in naming)
    return max(0, record.cost - record.shortfall - max(0, given))


def _price_of(record: UsageRecord) -> dict[str, Any] | None:
    """The price of a request as JSON, None when it has none. Of one that is deleted only the id is known."""
    if record.price_id is None:
        return None
    if record.price is None:
        return {"id": record.price_id, "deleted": True, "usd": {}}
    return price_object(record.price)


def price_object(price: Any) -> dict[str, Any]:
    """Return a version of a price as JSON, in USD per 1M tokens or per unit."""
    classes = {name: format(value.normalize(), "f") for name in CLASSES if (value := getattr(price, name)) is not None}
    return {
        "id": price.pk,
        "valid_from": price.valid_from.isoformat(),
        "above_tokens": price.above_tokens,
        "usd": classes,
    }


def find_receipt(request_id: str, user_id: int) -> dict[str, Any] | None:
    """Return the receipt of a request of this user, None when there is none.

    Staff who may view usage find requests of all users; amounts of others only if they may see what users pay.
    """
    person = staff_member(user_id, "relay.view_usagerecord")
    staff = person is not None
    rows = UsageRecord.objects.select_related("price").filter(request_id=request_id)
    record = (rows if staff else rows.filter(user_id=user_id)).first()
    if record is None:
        return None
    found = receipt(record, staff, may(person, EARNINGS))
    if record.user_id != user_id and not may(person, "relay.view_ledgeraccount"):
        for member in _AMOUNTS:
            found.pop(member)
    return found


def quota_accounts() -> Any:
    """Return the quota accounts of the tokens of an outer query, for a Subquery.

    Found by their key, which is indexed.
    """
    return LedgerAccount.objects.filter(key=Concat(Value("quota:"), Cast(OuterRef("pk"), CharField(max_length=20))))


def token_usage(user_id: int, token_id: int, now: float) -> dict[str, Any]:
    """Return the answer of GET /v1/usage: what a token used, and everything that limits what it may spend."""
    days = Days(settings.TIME_ZONE)
    day = days.of(now)
    used, models = rollup.token_sums(user_id, token_id, day - SHOWN_DAYS + 1)
    totals = (
        dict(zip(rollup.SUMS, map(sum, zip(*used.values(), strict=True)), strict=True))
        if used
        else dict.fromkeys(rollup.SUMS, 0)
    )
    charged = rollup.SUMS.index("charged")
    spent = {}
    for period in PERIODS:
        first, last = bounds(period, day)
        spent[period] = sum(sums[charged] for at, sums in used.items() if first <= at <= last)
    token = Token.objects.select_related("user").get(pk=token_id)
    limits = spending_limits(user_id, token_id, now)
    return {
        "object": "usage",
        "token": {
            "name": token.name,
            "hint": token.hint,
            "expires_at": int(token.expires_at.timestamp()) if token.expires_at else None,
        },
        "totals": {
            "requests": totals["requests"],
            "input_tokens": totals["input"],
            "cached_input_tokens": totals["cached"],
            "output_tokens": totals["output"],
            "cost_usd": money.plain(totals["charged"]),
        },
        "spent_usd": {period: money.plain(amount) for period, amount in spent.items()},
        "limits": [
            {
                "kind": line.kind,
                "period": line.period or None,
                "of": line.scope,
                "limit_usd": money.plain(line.limit) if line.limit is not None else None,
                "used_usd": money.plain(line.used),
                "reserved_usd": money.plain(line.reserved),
                "left_usd": money.plain(max(0, line.left)) if line.left is not None else None,
                "resets_at": int(line.ends_at.timestamp()) if line.ends_at else None,
            }
            for line in limits
        ],
        "request_limits": {
            "requests_per_minute": token.max_rpm,
            "tokens_per_minute": token.max_tpm,
            "requests_per_day": token.max_rpd,
            "concurrency": token.max_concurrency,
        },
        **shared_keys(TokenUse(token.name, token.expires_at, day, used, models, spent), limits),
    }


_UNLIMITED = 100_000_000  # USD; the value by which clients of one-api recognize that there is no limit


def subscription(user_id: int, token_id: int, now: float) -> dict[str, Any]:
    """Return the `billing_subscription` that clients of one-api read: what the token may spend in all, in USD."""
    limits = [
        line
        for line in spending_limits(user_id, token_id, now)
        if line.kind in {"wallet", "quota"} and line.limit is not None
    ]
    quota = next((line for line in limits if line.kind == "quota"), None)
    spent = _spent(token_id)
    total = float(_UNLIMITED)
    if limits:
        left = min(max(0, line.left or 0) + line.reserved for line in limits)
        total = float(
            money.in_usd(
                quota.limit
                if quota is not None and quota.limit is not None and quota.limit - quota.used <= left
                else left + spent
            )
        )
    token = Token.objects.get(pk=token_id)
    return {
        "object": "billing_subscription",
        "has_payment_method": True,
        "soft_limit_usd": total,
        "hard_limit_usd": total,
        "system_hard_limit_usd": total,
        "access_until": int(token.expires_at.timestamp()) if token.expires_at else 0,
    }


def total_usage(token_id: int) -> dict[str, Any]:
    """Return the `total_usage` that clients of one-api read: US cents spent. Dates are ignored, as one-api does."""
    return {"object": "list", "total_usage": float(money.in_usd(_spent(token_id)) * 100)}


def _spent(token_id: int) -> int:
    return LedgerAccount.objects.filter(token=token_id, kind="quota").values_list("used", flat=True).first() or 0
