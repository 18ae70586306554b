from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import ReadOnlyAdmin, action, request_ip
from accounts.models import AuditEvent
from accounts.rights import may
from portal.lib import money
from relay.error_texts import explained
from relay.models import ApiKey, Channel, Model, RefusedRequest, UsageRecord
from relay.models.ledger import AMOUNTS
from relay.models.usage import EARNINGS, EndReason
from relay.providers.failures import BY_WORD
from relay.usage import rollup
from relay.usage.caches.misses import cache_of
from relay.usage.csv_files import csv_chunks, report_csv
from relay.usage.paging import merged_page
from relay.usage.query import REPORT_FILTERS, STAFF_FILTERS, UsageQuery, filtered, last_days, months
from relay.usage.receipts import ledger_entries_of, movements_naming, not_given_back, receipt
from relay.usage.reports import (
    GROUPINGS,
    MOST_LINES,
    ReportLine,
    ReportSums,
    report_lines,
    report_total,
    top_spenders,
)
from relay.usage.search import find_request

_RANGES = (1, 7, 30, 90, 365)
_MOST_EXPORTED = 100_000  # lines of a report
_ROWS = 50  # of one page
# Colours of end reasons that are not bad.
_TONE = {"completed": "good", "client_error": "", "client_gone": "", "ended": "warn", "shutdown": "warn"}


def sees_money(request: HttpRequest) -> bool:
    """Whether somebody may see what users pay and have. Operators maintain channels without seeing it."""
    return may(request.user, AMOUNTS)


def sees_earnings(request: HttpRequest) -> bool:
    """Whether somebody may see what upstreams cost and what is earned."""
    return may(request.user, EARNINGS)


@admin.register(UsageRecord)
class UsageRecordAdmin(ReadOnlyAdmin):
    """Usage records and their receipts. They are written by the relay and never changed."""

    actions_list: ClassVar[Any] = ("cost_report", "export_csv")
    rights_words: ClassVar[Any] = {
        "end_request": _("See and end running requests of everyone"),
        "view_earnings": _("See what upstreams cost and what is earned"),
    }

    # -- pages -------------------------------------------------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the records, filtered and paged by keyset: the table may have millions of rows and is never counted."""
        if not self.has_view_permission(request):
            return super().changelist_view(request, extra_context)
        asked = request.GET.get("q", "").strip()
        found = find_request(asked, UsageRecord.objects.all(), RefusedRequest.objects.all()) if asked else None
        if isinstance(found, UsageRecord):
            return redirect("admin:relay_usagerecord_change", found.pk)
        if found is not None:
            return redirect("admin-refused", found.request_id)
        query = _query(request)
        rows, narrowed = query.records(UsageRecord.objects.all())
        refused, alike = query.refusals(RefusedRequest.objects.all())
        sources = (
            (rows.select_related("user", "token", "channel"), narrowed),
            (refused.select_related("user", "token"), alike),
        )
        page = merged_page(sources, request.GET.get("before", ""), _ROWS)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Usage"),
            "opts": self.model._meta,
            "cl": None,
            "rows": [
                (row, _tone(row), query.link(user=row.user_id), query.link(token=row.token_id)) for row in page.rows
            ],
            "older": query.link(before=page.before) if page.before else "",
            "until": page.until,
            "chosen": query.filters,
            "dates": query.period.dates if query.period is not None else {},
            "user_name": query.user_name() or query.nobody,
            "names": query.names(),
            "narrowed": bool(query.filters or query.period),
            "asked": asked[:120],
            "unknown": bool(asked),
            "reasons": EndReason.choices,
            "channels": Channel.objects.values_list("pk", "name"),
            "models": Model.objects.values_list("name", flat=True)[:500],
            "money": sees_money(request),
            "earnings": sees_earnings(request),
            "query": query,
            "links": {
                "export": query.link(),
                "report": query.only(REPORT_FILTERS).link(),
            },
        }
        return render(request, "admin/relay/usagerecord/list.html", context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the receipt instead of a form, since records are never changed."""
        record = self.get_object(request, object_id)
        if record is None or request.method != "GET" or not self.has_view_permission(request, record):
            return super().change_view(request, object_id, form_url, extra_context)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Receipt %(id)s") % {"id": record.request_id},
            "opts": self.model._meta,
            "object": record,
            "record": record,
            "receipt": receipt(record, staff=True, earnings=sees_earnings(request)),
            "attempts": _attempts(record),
            "cache": cache_of(record, staff=True),
            **_ledger(request, record),
            "money": _money(record) if sees_money(request) else None,
            "earnings": sees_earnings(request),
            "error": explained(record.error_code) if record.error_code else None,
        }
        return render(request, "admin/relay/usagerecord/receipt.html", context)

    @action(description=_("Cost and margin"), url_path="report", icon="monitoring", permissions=["earnings"])
    def cost_report(self, request: HttpRequest) -> HttpResponse:
        """Show sums by day, model, token, channel or user, or export them as CSV."""
        by = request.GET.get("by", "day")
        by = by if by in GROUPINGS else "day"
        query = UsageQuery.read(request.GET, REPORT_FILTERS, last_days(30), by_address=_sees_users(request), by=by)
        behind = rollup.catch_up()
        if request.GET.get("csv"):
            return self._export_report(request, query, by)
        lines, total = _report(query, by, MOST_LINES), report_total(query.scope())
        rest = _rest(lines, total) if len(lines) >= MOST_LINES and by != "day" else None
        context = {
            **self.admin_site.each_context(request),
            "title": _("Cost and margin"),
            "opts": self.model._meta,
            "by": by,
            "period": query.period,
            "dates": query.period.dates if query.period is not None else {},
            "ways": [(key, label, query.link(by=key)) for key, label in GROUPINGS.items()],
            "ranges": [(days, query.link(days=days)) for days in _RANGES],
            "months": [(label, query.link(month=month), month) for month, label in months()],
            "month": dict(query.period.parameters).get("month") if query.period is not None else None,
            "behind": behind,
            "lines": [(line, _line_money(line.sums), _narrow(query, by, line)) for line in lines],
            "rest": rest,
            "rest_money": _line_money(rest) if rest is not None else {},
            "total": total,
            "total_money": _line_money(total),
            "names": query.names(),
            "nobody": query.nobody,
            "hidden": {"by": by, **query.parameters()},
            "links": {
                "all": UsageQuery(query.period, {}, query.extra).link(),
                "table": query.link(csv=1),
                "requests": query.only(REPORT_FILTERS).link(),
                "movements": query.only(("user",)).link() if may(request.user, "relay.view_ledgerentry") else "",
            },
        }
        return render(request, "admin/relay/usagerecord/report.html", context)

    def _export_report(self, request: HttpRequest, query: UsageQuery, by: str) -> HttpResponse:
        AuditEvent.write("usage.export", request.user, None, request_ip(request), query=query.link())
        response = HttpResponse(
            report_csv(by, _report(query, by, _MOST_EXPORTED)), content_type="text/csv; charset=utf-8"
        )
        response["Content-Disposition"] = f'attachment; filename="{_file_name(query, f"by-{by}")}"'
        return response

    @action(description=_("Export as CSV"), url_path="export", icon="download", permissions=["money"])
    def export_csv(self, request: HttpRequest) -> HttpResponseBase:
        """Stream records as CSV: those that the list shows with the same period and filters."""
        query = _query(request)
        rows, refused = query.records(UsageRecord.objects.all()), query.refusals(RefusedRequest.objects.all())
        AuditEvent.write("usage.export", request.user, None, request_ip(request), query=query.link())
        response = StreamingHttpResponse(
            csv_chunks(filtered(*rows), filtered(*refused), staff=True, earnings=sees_earnings(request)),
            content_type="text/csv; charset=utf-8",
        )
        response["Content-Disposition"] = f'attachment; filename="{_file_name(query, "requests")}"'
        return response

    def has_money_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_view_permission(request) and sees_money(request)

    def has_earnings_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_view_permission(request) and sees_earnings(request)


def _sees_users(request: HttpRequest) -> bool:
    return may(request.user, "accounts.view_user")


def _query(request: HttpRequest) -> UsageQuery:
    """The period and filters of the list or its export."""
    return UsageQuery.read(request.GET, STAFF_FILTERS, by_address=_sees_users(request))


def _tone(row: UsageRecord | RefusedRequest) -> str:
    return "bad" if isinstance(row, RefusedRequest) else _TONE.get(row.end_reason, "bad")


def _report(query: UsageQuery, by: str, most: int) -> list[ReportLine]:
    """Return the lines of a report. A month of all users or tokens, of which there may be many, is in an index."""
    month = query.period.month if query.period is not None else None
    if by in {"user", "token"} and not query.filters and month is not None:
        return top_spenders(by, month, most)
    return report_lines(query.scope(), by, most)


def _rest(lines: Sequence[ReportLine], total: ReportSums) -> ReportSums:
    """Return what the total has beyond the lines."""
    shown = sum((line.sums for line in lines), ReportSums())
    return ReportSums(*(getattr(total, one.name) - getattr(shown, one.name) for one in fields(total)))


def _narrow(query: UsageQuery, by: str, line: ReportLine) -> str:
    """Return the link of a line to a report on it alone, empty when there is none."""
    if by == "day":
        return query.link(by="model", since=line.key.isoformat(), until=line.key.isoformat())
    return query.link(**{by: line.key, "by": "model" if by != "model" else "day"}) if line.key else ""


def _file_name(query: UsageQuery, what: str) -> str:
    dates = query.period.dates if query.period is not None else {}
    return "-".join(["usage", *(dates[side] for side in ("since", "until") if side in dates), what]) + ".csv"


def _money(record: UsageRecord) -> dict[str, str]:
    charged = record.cost - record.shortfall
    return {
        "cost": money.exact(record.cost),
        "charged": money.exact(charged),
        "shortfall": money.exact(record.shortfall) if record.shortfall else "",
        "reserved": money.exact(record.reserved),
        "upstream": money.exact(record.upstream_cost),
        "margin": money.exact(charged - record.upstream_cost),
    }


def _ledger(request: HttpRequest, record: UsageRecord) -> dict[str, Any]:
    """Return the entries of a request, the movements that name it, and where it is given back, as far as one may."""
    if not sees_money(request):
        return {"entries": [], "naming": [], "give_back": ""}
    naming = movements_naming(record)
    left = not_given_back(record, naming) if may(request.user, "relay.add_ledgerentry") else 0
    wanted = {"amount": money.plain(left), "reason": f"Refund of {record.request_id}"}
    return {
        "entries": [(entry, money.exact(entry.amount)) for entry in ledger_entries_of(record)],
        "naming": [(entry, money.exact(entry.amount)) for entry in naming],
        "give_back": f"{reverse('admin:accounts_user_top_up', args=[record.user_id])}?{urlencode(wanted)}"
        if left and record.user is not None
        else "",
    }


def _line_money(sums: Any) -> dict[str, str]:
    return {
        "cost": money.exact(sums.cost),
        "upstream": money.exact(sums.upstream_cost),
        "margin": money.exact(sums.margin),
    }


def _attempts(record: UsageRecord) -> list[dict[str, Any]]:
    """Return the attempts with the names of channels and keys, as far as they still exist, and outcomes in words."""
    log = record.attempt_log
    channels = dict(Channel.objects.filter(pk__in={one["channel"] for one in log}).values_list("pk", "name"))
    keys = {key.pk: key.public_name for key in ApiKey.objects.filter(pk__in={one["key"] for one in log})}
    found = []
    for number, one in enumerate(log, 1):
        if one["outcome"] in BY_WORD:
            outcome = _(BY_WORD[one["outcome"]].text)
        elif number == len(log) and record.end_reason != EndReason.COMPLETED:
            outcome = _("answer begun")
        else:
            outcome = _("answered")
        name, key = channels.get(one["channel"], f"#{one['channel']}"), one["key"]
        found.append(
            {
                **one,
                "channel_id": one["channel"],
                "channel": name,
                "key": keys.get(key, f"#{key}") if key else "",
                "outcome": outcome,
            }
        )
    return found
