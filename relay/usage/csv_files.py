"""Usage as CSV: requests, refused ones too, and the lines of reports."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from channels.db import database_sync_to_async
from django.db.models import QuerySet

from portal.lib import money
from relay.models import RefusedRequest, UsageRecord
from relay.usage.reports import ReportLine

_CHUNK: Final = 1000  # rows of one query

_COLUMNS: Final = (
    "request_id", "started_at", "user", "token", "model", "endpoint", "streamed", "status", "end_reason",
    "input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens", "usage_source",
    "latency_ms", "first_token_ms", "cost_usd", "charged_usd", "paid_by", "billing", "error_code", "requests",
    "cached_audio_input_tokens", "audio_input_tokens", "audio_output_tokens", "image_input_tokens",
    "cache_write_1h_tokens", "app", "session", "searches",
)  # fmt: skip
_STAFF_COLUMNS: Final = ("channel", "upstream_model", "attempts")
_EARNINGS_COLUMNS: Final = ("upstream_cost_usd", "margin_usd")


async def csv_chunks(
    rows: QuerySet[UsageRecord], refused: QuerySet[RefusedRequest], staff: bool = False, earnings: bool = False
) -> AsyncIterator[bytes]:
    """Yield usage records as CSV, newest first, then requests that were refused before routing, which cost nothing.

    With `staff` there are columns of channel and attempts, with `earnings` of the upstream's cost and the margin.

    Reads a thousand at a time by id, so that neither memory nor a transaction grows with their number.
    """
    yield table_csv([[*_COLUMNS, *(_STAFF_COLUMNS if staff else ()), *(_EARNINGS_COLUMNS if earnings else ())]])
    for table in (rows.select_related("user", "token", "channel"), refused.select_related("user", "token")):
        before: int | None = None
        while page := await database_sync_to_async(_page)(table, before):
            before = page[-1].pk
            yield table_csv([_values(row, staff, earnings) for row in page])


def report_csv(by: str, lines: Sequence[ReportLine]) -> bytes:
    """Return the lines of a report as CSV, with money, in USD."""
    head = (by, "requests", "failed", "input_tokens", "cached_input_tokens", "output_tokens", "charged_usd",
            "upstream_cost_usd", "margin_usd")  # fmt: skip
    table: list[list[Any]] = [[*head]]
    for line in lines:
        sums = line.sums
        name = line.key.isoformat() if by == "day" else line.label
        amounts = (money.plain(amount) for amount in (sums.cost, sums.upstream_cost, sums.margin))
        table.append([name, sums.requests, sums.failed, sums.input, sums.cached, sums.output, *amounts])
    return table_csv(table)


def _page(rows: QuerySet[Any], before: int | None) -> list[Any]:
    part = rows.order_by("-pk")
    return list((part if before is None else part.filter(pk__lt=before))[:_CHUNK])


def _values(record: UsageRecord | RefusedRequest, staff: bool, earnings: bool) -> list[Any]:
    if isinstance(record, RefusedRequest):
        return _refused_values(record, (3 if staff else 0) + (2 if earnings else 0))
    charged = record.cost - record.shortfall
    found = [
        record.request_id,
        record.started_at.isoformat(),
        _name(record.user),
        _name(record.token),
        record.model,
        record.endpoint,
        int(record.streamed),
        record.status,
        record.end_reason,
        record.input_tokens,
        record.cached_input_tokens,
        record.cache_write_tokens,
        record.output_tokens,
        record.reasoning_tokens,
        record.usage_source,
        record.latency_ms,
        "" if record.first_token_ms is None else record.first_token_ms,
        money.plain(record.cost),
        money.plain(charged),
        record.payer,
        record.billing,
        record.error_code,
        1,
        record.cached_audio_input_tokens,
        record.audio_input_tokens,
        record.audio_output_tokens,
        record.image_input_tokens,
        record.cache_write_1h_tokens,
        record.app or "",
        record.session_code,
        record.searches,
    ]
    if staff:
        found += [_name(record.channel), record.upstream_model, record.attempts]
    if earnings:
        found += [money.plain(record.upstream_cost), money.plain(charged - record.upstream_cost)]
    return found


def _refused_values(row: RefusedRequest, more: int) -> list[Any]:
    start = [row.request_id, row.started_at.isoformat(), _name(row.user), _name(row.token), row.model, row.endpoint]
    nothing = [0, 0, 0, 0, 0, "none", "", "", "0", "0", "", ""]
    own = [row.error_code, row.requests, *[0] * 5, "", "", 0]
    return [*start, 0, row.status, "refused", *nothing, *own, *[""] * more]


def _name(row: Any) -> str:
    return "" if row is None else str(row)


def table_csv(table: list[list[Any]]) -> bytes:
    """Return rows as CSV in which no text is a formula."""
    out = io.StringIO()
    csv.writer(out).writerows([[escape_formula(value) for value in row] for row in table])
    return out.getvalue().encode()


def escape_formula(value: Any) -> Any:
    """Prefix a text with an apostrophe if a spreadsheet would take it for a formula: names are typed by users."""
    return (
        "'" + value
        if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} and not _is_number(value)
        else value
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
