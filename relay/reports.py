"""Use and money by day, model, token, channel or user; and all of it as CSV, a piece at a time."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as midnight
from typing import Any, Final

from channels.db import database_sync_to_async
from django.db.models import Count, F, Q, QuerySet, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

from portal.lib import money
from relay.models import UsageRecord

BY: Final = {"day": "Day", "model": "Model", "token": "Token", "channel": "Channel", "user": "User"}
_FIELDS: Final = {
    "model": ("model",),
    "token": ("token_id", "token__name", "token__user__username"),
    "channel": ("channel_id", "channel__name"),
    "user": ("user_id", "user__username"),
}
_CHUNK: Final = 1000
_MOST: Final = 200


@dataclass(frozen=True, slots=True)
class Sums:
    """Amounts in nano-USD. `cost`: what was charged; `margin`: that less what upstreams charge."""

    requests: int = 0
    failed: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    cost: int = 0
    upstream_cost: int = 0

    @property
    def tokens(self) -> int:
        return self.input + self.output

    @property
    def margin(self) -> int:
        return self.cost - self.upstream_cost


@dataclass(frozen=True, slots=True)
class Line:
    key: Any
    label: str
    sums: Sums


def since(days: int) -> tuple[date, datetime]:
    """The first of the last `days` days, and its beginning, in the portal's time zone."""
    first = timezone.localdate() - timedelta(days=days - 1)
    return first, timezone.make_aware(datetime.combine(first, midnight()))


def total(rows: QuerySet[UsageRecord]) -> Sums:
    return _sums(rows.aggregate(**_SUMS))


def lines(rows: QuerySet[UsageRecord], by: str) -> list[Line]:
    """Sums of each day (oldest first), or of each model, token, channel or user (dearest first, at most 200)."""
    if by == "day":
        found = rows.annotate(day=TruncDate("started_at")).values("day").annotate(**_SUMS).order_by("day")
        return [Line(row["day"], f"{row['day']:%-d %b %Y}", _sums(dict(row))) for row in found]
    fields = _FIELDS[by]
    grouped = rows.values(*fields).annotate(**_SUMS).order_by("-charged", "-requests")[:_MOST]
    return [Line(row[fields[0]], _label(by, dict(row)), _sums(dict(row))) for row in grouped]


def _label(by: str, row: dict[str, Any]) -> str:
    if by == "model":
        return str(row["model"])
    if by == "token":
        return f"{row['token__name']} ({row['token__user__username']})" if row["token__name"] else f"token {row['token_id']}"
    if by == "channel":
        return row["channel__name"] or (f"channel {row['channel_id']}" if row["channel_id"] else "no channel")
    return row["user__username"] or f"user {row['user_id']}"


_SUMS: Final[dict[str, Any]] = {
    "requests": Count("pk"),
    "failures": Count("pk", filter=Q(status__gte=400)),
    "into": Sum("input_tokens"),
    "cached": Sum("cached_input_tokens"),
    "out": Sum("output_tokens"),
    "charged": Sum(F("cost") - F("shortfall")),
    "upstream": Sum("upstream_cost"),
}


def _sums(row: dict[str, Any]) -> Sums:
    return Sums(row["requests"], row["failures"], int(row["into"] or 0), int(row["cached"] or 0), int(row["out"] or 0), int(row["charged"] or 0), int(row["upstream"] or 0))


# -- CSV ---------------------------------------------------------------------------------------------------------------

_COLUMNS: Final = (
    "request_id", "started_at", "user", "token", "model", "endpoint", "streamed", "status", "end_reason", "input_tokens", "cached_input_tokens", "cache_write_tokens",
    "output_tokens", "reasoning_tokens", "usage_source", "latency_ms", "first_token_ms", "cost_usd", "charged_usd", "paid_by", "billing",
)  # fmt: skip
_STAFF_COLUMNS: Final = ("channel", "upstream_model", "attempts", "upstream_cost_usd", "margin_usd")


async def csv_pieces(rows: QuerySet[UsageRecord], staff: bool) -> AsyncIterator[bytes]:
    """The records as CSV, newest first, read a thousand at a time by id: neither memory nor a long transaction grows with their number."""
    yield _csv([[*_COLUMNS, *(_STAFF_COLUMNS if staff else ())]])
    before: int | None = None
    while True:
        page = await database_sync_to_async(_page)(rows, before)
        if not page:
            return
        before = page[-1].pk
        yield _csv([_values(record, staff) for record in page])


def _page(rows: QuerySet[UsageRecord], before: int | None) -> list[UsageRecord]:
    part = rows.select_related("user", "token", "channel").order_by("-pk")
    return list((part if before is None else part.filter(pk__lt=before))[:_CHUNK])


def _values(record: UsageRecord, staff: bool) -> list[Any]:
    charged = record.cost - record.shortfall
    found = [
        record.request_id, record.started_at.isoformat(), _name(record.user), _name(record.token), record.model, record.endpoint, int(record.streamed), record.status,
        record.end_reason, record.input_tokens, record.cached_input_tokens, record.cache_write_tokens, record.output_tokens, record.reasoning_tokens, record.usage_source,
        record.latency_ms, "" if record.first_token_ms is None else record.first_token_ms, money.plain(record.cost), money.plain(charged), record.payer, record.billing,
    ]  # fmt: skip
    if staff:
        found += [_name(record.channel), record.upstream_model, record.attempts, money.plain(record.upstream_cost), money.plain(charged - record.upstream_cost)]
    return found


def _name(row: Any) -> str:
    return "" if row is None else str(row)


def _csv(table: list[list[Any]]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerows([[harmless(value) for value in row] for row in table])
    return out.getvalue().encode()


def harmless(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula: names are typed by users."""
    return "'" + value if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} and not _is_number(value) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
