from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import formats, timezone
from django.utils.translation import gettext_lazy as _

from accounts.admin.base import ReadOnlyAdmin, action, request_ip
from accounts.models import AuditEvent, User
from accounts.rights import may
from portal.lib import money
from portal.lib.days import parse_day
from portal.lib.texts import whole_number
from relay.error_texts import explained
from relay.models import ApiKey, Channel, Model, RefusedRequest, UsageRecord
from relay.models.usage import EARNINGS, EndReason
from relay.providers.failures import BY_WORD
from relay.usage import rollup
from relay.usage.paging import merged_page
from relay.usage.receipts import ledger_entries_of, receipt
from relay.usage.reports import (
    GROUPINGS,
    ReportScope,
    ReportSums,
    beginning_of,
    csv_chunks,
    report_lines,
    report_total,
    top_spenders,
)

_RANGES = (1, 7, 30, 90, 365)
_MONTHS = 12  # that can be chosen where users and tokens are compared
_FILTERS = ("user", "token", "channel", "model")
_ROWS = 50  # of one page
_REFUSED = "refused"  # the outcome of requests without a usage record
# Colours of end reasons that are not bad.
_TONE = {"completed": "good", "client_error": "", "client_gone": "", "ended": "warn", "shutdown": "warn"}


def sees_money(request: HttpRequest) -> bool:
    """Whether somebody may see what users pay and have. Operators maintain channels without seeing it."""
    return may(request.user, "relay.view_ledgeraccount")


def sees_earnings(request: HttpRequest) -> bool:
    """Whether somebody may see what upstreams cost and what is earned."""
    return may(request.user, EARNINGS)


@admin.register(UsageRecord)
class UsageRecordAdmin(ReadOnlyAdmin):
    """Usage records and their receipts. They are written by the relay and never changed."""

    actions_list: ClassVar[Any] = ("cost_report", "export_csv")

    # -- pages -------------------------------------------------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the records, filtered and paged by keyset: the table may have millions of rows and is never counted."""
        if not self.has_view_permission(request):
            return super().changelist_view(request, extra_context)
        asked = request.GET.get("q", "").strip()[:120]
        if asked.startswith("req_"):
            found = UsageRecord.objects.filter(request_id=asked).values_list("pk", flat=True).first()
            if found is not None:
                return redirect("admin:relay_usagerecord_change", found)
            if RefusedRequest.objects.filter(request_id=asked).exists():
                return redirect("admin-refused", asked)
        chosen, rows, narrowed = self._filtered(request)
        refused, alike = _refused(chosen)
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
            "rows": [(row, _TONE.get(getattr(row, "end_reason", ""), "bad")) for row in page.rows],
            "older": urlencode(chosen | {"before": page.before}) if page.before else "",
            "until": page.until,
            "chosen": chosen,
            "asked": asked,
            "unknown": bool(asked),
            "reasons": EndReason.choices,
            "channels": Channel.objects.values_list("pk", "name"),
            "models": Model.objects.values_list("name", flat=True)[:500],
            "money": sees_money(request),
            "earnings": sees_earnings(request),
            "query": urlencode(chosen),
            "live": not chosen and not request.GET.get("before"),
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
            "entries": [(entry, money.show(entry.amount)) for entry in ledger_entries_of(record)]
            if sees_money(request)
            else [],
            "money": _money(record) if sees_money(request) else None,
            "earnings": sees_earnings(request),
            "error": explained(record.error_code) if record.error_code else None,
        }
        return render(request, "admin/relay/usagerecord/receipt.html", context)

    @action(description=_("Cost and margin"), url_path="report", icon="monitoring", permissions=["earnings"])
    def cost_report(self, request: HttpRequest) -> HttpResponse:
        """Show sums by day, model, token, channel or user."""
        by = request.GET.get("by", "day")
        by = by if by in GROUPINGS else "day"
        days, chosen = _days(request), _numbers(request)
        behind = rollup.catch_up()
        scope = ReportScope.days(days, **chosen)
        by_month = by in {"user", "token"} and not chosen  # there may be tens of thousands of them
        month = _month(request, rollup.month_of(scope.last))
        sums = _month_total(month) if by_month else report_total(scope)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Cost and margin"),
            "opts": self.model._meta,
            "by": by,
            "days": days,
            "ways": GROUPINGS.items(),
            "ranges": () if by_month else _RANGES,
            "behind": behind,
            "months": _months(rollup.month_of(scope.last)) if by_month else (),
            "month": month,
            "lines": [
                (line, _line_money(line.sums), chosen | {by: line.key} if by in _FILTERS and line.key else None)
                for line in (top_spenders(by, month) if by_month else report_lines(scope, by))
            ],
            "total": sums,
            "total_money": _line_money(sums),
            "chosen": chosen,
            "query": urlencode(chosen),
            "narrow": "model" if by != "model" else "day",
        }
        return render(request, "admin/relay/usagerecord/report.html", context)

    @action(description=_("Export as CSV"), url_path="export", icon="download", permissions=["money"])
    def export_csv(self, request: HttpRequest) -> HttpResponseBase:
        """Stream the records of the last days as CSV. Takes the filters of the list and of the report."""
        days, (chosen, rows, narrowed) = _days(request), self._filtered(request)
        rows = rows.filter(started_at__gte=beginning_of(ReportScope.days(days).first))
        AuditEvent.write("usage.export", request.user, None, request_ip(request), days=days, **chosen)
        response = StreamingHttpResponse(
            csv_chunks(rows.filter(narrowed) if narrowed else rows, staff=True, earnings=sees_earnings(request)),
            content_type="text/csv; charset=utf-8",
        )
        response["Content-Disposition"] = 'attachment; filename="usage.csv"'
        return response

    def has_money_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_view_permission(request) and sees_money(request)

    def has_earnings_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self.has_view_permission(request) and sees_earnings(request)

    def _filtered(self, request: HttpRequest) -> tuple[dict[str, Any], QuerySet[UsageRecord], Q | None]:
        """Return the chosen filters, the records that an index finds, and the condition for the other filters."""
        chosen: dict[str, Any] = {}
        rows, narrowed = UsageRecord.objects.all(), Q()
        name = request.GET.get("user_name", "").strip()[:150]
        if name:
            chosen["user_name"] = name
            rows = rows.filter(user=User.objects.filter(username=name).values_list("pk", flat=True).first() or 0)
        for field, value in _numbers(request).items():
            chosen[field] = value
            if field == "model":
                narrowed &= Q(model=value)
            else:
                rows = rows.filter(**{field: value})
        if (reason := request.GET.get("outcome", "")) == _REFUSED:
            chosen["outcome"], rows = reason, rows.none()
        elif reason in {*EndReason.values, "failed"}:
            chosen["outcome"] = reason
            narrowed &= (
                Q(end_reason=reason) if reason != "failed" else Q(status__gte=400) | Q(end_reason__in=rollup.FAULTS)
            )
        if code := request.GET.get("code", "")[:64]:
            chosen["code"] = code
            narrowed &= Q(error_code=code)
        for side, lookup in (("since", "gte"), ("until", "lt")):
            moment = _date(request.GET.get(side, ""))
            if moment is not None:
                chosen[side] = request.GET[side]
                rows = rows.filter(
                    **{f"started_at__{lookup}": moment if side == "since" else moment + timedelta(days=1)}
                )
        return chosen, rows, narrowed or None


def _refused(chosen: dict[str, Any]) -> tuple[QuerySet[RefusedRequest], Q | None]:
    """Return the refused requests that an index finds for the filters of the list, and the other conditions."""
    rows, narrowed = RefusedRequest.objects.all(), Q()
    if "channel" in chosen or chosen.get("outcome", _REFUSED) not in {"failed", _REFUSED}:
        return rows.none(), None
    if "user_name" in chosen:
        rows = rows.filter(user__in=User.objects.filter(username=chosen["user_name"]))
    for name in ("user", "token"):
        if name in chosen:
            rows = rows.filter(**{name: chosen[name]})
    for name, field in (("model", "model"), ("code", "error_code")):
        if name in chosen:
            narrowed &= Q(**{field: chosen[name]})
    if "since" in chosen and (begin := _date(chosen["since"])) is not None:
        rows = rows.filter(started_at__gte=begin)
    if "until" in chosen and (last := _date(chosen["until"])) is not None:
        rows = rows.filter(started_at__lt=last + timedelta(days=1))
    return rows, narrowed or None


def _days(request: HttpRequest) -> int:
    days = whole_number(request.GET.get("days"))
    return 30 if days is None else min(max(days, 1), 3660)


def _month(request: HttpRequest, latest: int) -> int:
    return whole_number(request.GET.get("month"), latest - _MONTHS + 1, latest) or latest


def _months(latest: int) -> list[tuple[int, str]]:
    return [
        (month, formats.date_format(date(month // 12, month % 12 + 1, 1), "YEAR_MONTH_FORMAT"))
        for month in range(latest, latest - _MONTHS, -1)
    ]


def _month_total(month: int) -> ReportSums:
    first = date(month // 12, month % 12 + 1, 1).toordinal()
    after = date((month + 1) // 12, (month + 1) % 12 + 1, 1).toordinal()
    return report_total(ReportScope(first, after - 1))


def _numbers(request: HttpRequest) -> dict[str, Any]:
    """Return the filters in the query string: ids, and the name of a model."""
    found: dict[str, Any] = {}
    for name in _FILTERS:
        value = request.GET.get(name, "")
        if name == "model" and value:
            found[name] = value[:120]
        elif (number := whole_number(value)) is not None:
            found[name] = number
    return found


def _date(text: str) -> datetime | None:
    day = parse_day(text)
    return timezone.make_aware(datetime.combine(day, datetime.min.time())) if day is not None else None


def _money(record: UsageRecord) -> dict[str, str]:
    charged = record.cost - record.shortfall
    return {
        "cost": money.show(record.cost),
        "charged": money.show(charged),
        "shortfall": money.show(record.shortfall) if record.shortfall else "",
        "reserved": money.show(record.reserved),
        "upstream": money.show(record.upstream_cost),
        "margin": money.show(charged - record.upstream_cost),
    }


def _line_money(sums: Any) -> dict[str, str]:
    return {
        "cost": money.show(sums.cost),
        "upstream": money.show(sums.upstream_cost),
        "margin": money.show(sums.margin),
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
