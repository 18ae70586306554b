"""Requests of one token on the ledger, in the fewest words."""

from __future__ import annotations

import time
from typing import Any

from relay.billing.ledger import requests
from relay.billing.ledger.lines import Charge, ReserveOrder, SpendScope
from relay.billing.ledger.sql import LedgerSql
from relay.models import LedgerAccount


def free(scope: SpendScope) -> int:
    return LedgerAccount.objects.get(user=scope.user_id, kind="wallet").free


def charge(cost: int, covered: int, request_id: str = "req_1", house: bool = False) -> Charge:
    return Charge(request_id, cost, covered, house, time.time())


def record(scope: SpendScope, request_id: str, cost: int, shortfall: int = 0) -> None:
    """The usage record that belongs to a charge made by hand."""
    from portal.lib import clock
    from relay.models import UsageRecord

    UsageRecord.objects.create(
        request_id=request_id,
        started_at=clock.now(),
        user_id=scope.user_id,
        token_id=scope.token_id,
        model="m",
        endpoint="chat.completions",
        streamed=False,
        status=200,
        end_reason="completed",
        usage_source="reported",
        latency_ms=1,
        cost=cost,
        shortfall=shortfall,
    )


def reserve(
    scope: SpendScope, need: int, headroom: int = 0, minimum: int | None = None, reservation: str = "h" * 32
) -> Any:
    return requests.reserve(
        LedgerSql(),
        ReserveOrder(reservation, "host:1:2:x", scope, (), need, headroom, need if minimum is None else minimum),
        time.time(),
    )
