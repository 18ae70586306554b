"""Refused requests: writing, finding and counting them. Synchronous."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.db.models import Count, Sum

from accounts.rights import staff_member
from relay.models import RefusedRequest

_COUNTED: Final = 50_000  # rows that a sum reads at most, the newest


@dataclass(slots=True)
class Refusal:
    """A row to be written. `started_at` in seconds since 1970."""

    request_id: str
    client_request_id: str
    started_at: float
    user_id: int
    token_id: int
    model: str
    endpoint: str
    status: int
    error_code: str
    error_param: str
    error_message: str
    client_ip: str
    requests: int = 1


def write(rows: Sequence[Refusal]) -> None:
    """Write rows in one statement."""
    RefusedRequest.objects.bulk_create(
        RefusedRequest(**{**asdict(row), "started_at": datetime.fromtimestamp(row.started_at, UTC)}) for row in rows
    )


@dataclass(frozen=True, slots=True)
class RefusalSum:
    """Refused requests with the same error code."""

    code: str
    requests: int
    users: int


def refusal_sums(since: datetime, user_id: int | None = None) -> list[RefusalSum]:
    """Return how many requests were refused by error code, the most frequent first: of a user, or with None of all."""
    rows = RefusedRequest.objects.filter(started_at__gte=since)
    if user_id is not None:
        rows = rows.filter(user=user_id)
    newest = rows.order_by("-started_at").values_list("pk", flat=True)[_COUNTED : _COUNTED + 1]
    edge = RefusedRequest.objects.filter(pk__in=list(newest)).values_list("started_at", flat=True).first()
    if edge is not None:
        rows = rows.filter(started_at__gt=edge)
    sums = rows.order_by().values("error_code").annotate(whole=Sum("requests"), users=Count("user", distinct=True))
    return sorted(
        (RefusalSum(row["error_code"], row["whole"], row["users"]) for row in sums),
        key=lambda one: -one.requests,
    )


def find_refusal(request_id: str, user_id: int) -> dict[str, Any] | None:
    """Return the receipt of a refused request of this user as JSON, None when there is none.

    Staff who may view usage find requests of all users.
    """
    staff = staff_member(user_id, "relay.view_usagerecord") is not None
    rows = RefusedRequest.objects.filter(request_id=request_id)
    row = (rows if staff else rows.filter(user=user_id)).first()
    return refusal_object(row) if row is not None else None


def refusal_object(row: RefusedRequest) -> dict[str, Any]:
    """Return the receipt of a refused request as JSON: nothing was used, nothing was charged."""
    return {
        "object": "usage.receipt",
        "request_id": row.request_id,
        "client_request_id": row.client_request_id or None,
        "created": int(row.started_at.timestamp()),
        "endpoint": row.endpoint,
        "model": row.model or None,
        "status": row.status,
        "end_reason": "refused",
        "error": {"code": row.error_code or None, "param": row.error_param or None, "message": row.error_message},
        "requests": row.requests,
        "cost_usd": "0",
        "charged_usd": "0",
    }
