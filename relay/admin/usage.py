from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils import formats, timezone
from unfold.decorators import action, display

from accounts.admin.base import ReadOnlyAdmin, UncountedPaginator, address
from accounts.models import AuditEvent
from portal.lib import money
from relay.models import UsageRecord
from relay.receipts import entries_of, receipt
from relay.reports import BY, csv_pieces, lines, since, total

_RANGES = (1, 7, 30, 90, 365)
_FILTERS = ("user", "token", "channel", "model")


@admin.register(UsageRecord)
class UsageRecordAdmin(ReadOnlyAdmin):
    """One row per request that reached routing, with its receipt. Written by the relay, changed by nobody."""

    list_display = ("at", "user", "token", "model", "channel", "outcome", "tokens", "charged", "margin", "latency", "first_token", "attempts", "request_id")
    list_filter = ("end_reason", "streamed", "usage_source", "billing", "channel")
    list_select_related = ("user", "token", "channel")
    search_fields = ("=request_id", "=model")
    search_help_text = "A whole request id (x-request-id of the answer) or a model name."
    paginator = UncountedPaginator
    ordering = ("-id",)
    actions_list: ClassVar[Any] = ("cost_report", "export_csv")

    # -- pages -------------------------------------------------------------------------------------------------------

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The receipt, instead of a form that nobody may fill in."""
        record = self.get_object(request, object_id)
        if record is None or request.method != "GET" or not self.has_view_permission(request, record):
            return super().change_view(request, object_id, form_url, extra_context)
        context = {
            **self.admin_site.each_context(request), "title": f"Receipt {record.request_id}", "opts": self.model._meta, "object": record, "record": record,
            "receipt": receipt(record, staff=True), "entries": [(entry, money.show(entry.amount)) for entry in entries_of(record)], "money": _money(record),
        }  # fmt: skip
        return render(request, "admin/relay/usagerecord/receipt.html", context)

    @action(description="Cost and margin", url_path="report", icon="monitoring", permissions=["view"])  # type: ignore[operator]  # unfold annotates its decorator as a mapping
    def cost_report(self, request: HttpRequest) -> HttpResponse:
        """Sums by day, model, token, channel or user."""
        by, days, chosen, rows = self._asked(request)
        context = {
            **self.admin_site.each_context(request), "title": "Cost and margin", "opts": self.model._meta, "by": by, "days": days, "ways": BY.items(), "ranges": _RANGES,
            "lines": [(line, _line_money(line.sums), chosen | {by: line.key} if by in _FILTERS and line.key is not None else None) for line in lines(rows, by)],
            "total": (sums := total(rows)), "total_money": _line_money(sums), "chosen": chosen, "query": urlencode(chosen), "narrow": "model" if by != "model" else "day",
        }  # fmt: skip
        return render(request, "admin/relay/usagerecord/report.html", context)

    @action(description="Export as CSV", url_path="export", icon="download", permissions=["view"])  # type: ignore[operator]  # unfold annotates its decorator as a mapping
    def export_csv(self, request: HttpRequest) -> HttpResponseBase:
        """The records of the last days as CSV, streamed. Takes the filters of the report."""
        _, days, chosen, rows = self._asked(request)
        AuditEvent.write("usage.export", request.user, None, address(request), days=days, **chosen)
        response = StreamingHttpResponse(csv_pieces(rows, staff=True), content_type="text/csv; charset=utf-8")
        response["Content-Disposition"] = 'attachment; filename="usage.csv"'
        return response

    def _asked(self, request: HttpRequest) -> tuple[str, int, dict[str, Any], QuerySet[UsageRecord]]:
        by = request.GET.get("by", "day")
        days = int(request.GET["days"]) if request.GET.get("days", "").isdigit() else 30
        days = min(max(days, 1), 3660)
        rows = UsageRecord.objects.filter(started_at__gte=since(days)[1])
        chosen: dict[str, Any] = {}
        for name in _FILTERS:
            value = request.GET.get(name, "")
            if value and (name == "model" or (value.isdigit() and len(value) < 19)):
                chosen[name] = value
                rows = rows.filter(**{name if name == "model" else f"{name}_id": value})
        return by if by in BY else "day", days, chosen, rows

    # -- columns -----------------------------------------------------------------------------------------------------

    @display(
        description="outcome",
        label={
            "completed": "success", "client_error": "info", "client_gone": "info", "no_channel": "danger", "upstream_error": "danger",
            "timeout": "danger", "truncated": "danger", "ended": "warning", "shutdown": "warning", "internal_error": "danger",
        },
    )  # fmt: skip
    def outcome(self, record: UsageRecord) -> tuple[str, str]:
        return record.end_reason, f"{record.get_end_reason_display()} ({record.status})"

    @display(description="time", ordering="started_at")
    def at(self, record: UsageRecord) -> str:
        return formats.date_format(timezone.localtime(record.started_at), "j M H:i:s")

    @display(description="tokens in + out")
    def tokens(self, record: UsageRecord) -> str:
        mark = "≈ " if record.usage_source == "estimated" else ""
        return f"{mark}{record.input_tokens} + {record.output_tokens}"

    @display(description="charged", ordering="cost")
    def charged(self, record: UsageRecord) -> str:
        return money.show(record.cost - record.shortfall)

    @display(description="margin")
    def margin(self, record: UsageRecord) -> str:
        return money.show(record.cost - record.shortfall - record.upstream_cost)

    @display(description="took", ordering="latency_ms")
    def latency(self, record: UsageRecord) -> str:
        return f"{record.latency_ms} ms"

    @display(description="first token")
    def first_token(self, record: UsageRecord) -> str:
        return f"{record.first_token_ms} ms" if record.first_token_ms is not None else "—"


def _money(record: UsageRecord) -> dict[str, str]:
    charged = record.cost - record.shortfall
    return {
        "cost": money.show(record.cost), "charged": money.show(charged), "shortfall": money.show(record.shortfall) if record.shortfall else "",
        "reserved": money.show(record.reserved), "upstream": money.show(record.upstream_cost), "margin": money.show(charged - record.upstream_cost),
    }  # fmt: skip


def _line_money(sums: Any) -> dict[str, str]:
    return {"cost": money.show(sums.cost), "upstream": money.show(sums.upstream_cost), "margin": money.show(sums.margin)}
