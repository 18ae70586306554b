"""Usage records for the tests of sums."""

from __future__ import annotations

from typing import Any

from portal.lib import clock
from relay.models import UsageRecord


def record(number: int, user: Any = None, **more: Any) -> UsageRecord:
    values: dict[str, Any] = {
        "request_id": f"req_{number:032x}",
        "started_at": clock.now(),
        "user": user,
        "model": "m",
        "endpoint": "chat.completions",
        "streamed": False,
        "status": 200,
        "end_reason": "completed",
        "usage_source": "reported",
        "latency_ms": 5,
        "input_tokens": 10,
        "cached_input_tokens": 4,
        "output_tokens": 3,
        "cost": 1000,
        "upstream_cost": 400,
        "first_token_ms": 100,
    }
    return UsageRecord.objects.create(**{**values, **more})
