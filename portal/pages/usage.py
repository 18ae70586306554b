"""The user's usage: sums, requests, receipts and export as CSV."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from django.contrib.auth.decorators import login_required
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.template.loader import render_to_string
from django.views.decorators.cache import never_cache

from portal.lib.texts import whole_number
from portal.pages.home import DAYS, chart
from portal.pages.shared.scope import refusals_of, signed_in_user, tokens_of, usage_of
from relay.error_texts import explained
from relay.models import RefusedRequest, UsageRecord
from relay.usage import rollup
from relay.usage.paging import UsagePage, merged_page
from relay.usage.receipts import ledger_entries_of, receipt
from relay.usage.reports import ReportScope, beginning_of, csv_chunks, report_lines, report_total

ROWS = 50
_MOST: Final = 50


@login_required
def usage(request: HttpRequest) -> HttpResponse:
    """Usage of the last 30 days by day, model and token, and the latest requests, filtered and paged by id."""
    user = signed_in_user(request)
    behind = rollup.catch_up()
    scope = ReportScope.days(DAYS, user=user.pk)
    begin = beginning_of(scope.first)
    chosen, page = _page(
        request, usage_of(user).filter(started_at__gte=begin), refusals_of(user).filter(started_at__gte=begin)
    )
    per_model = report_lines(scope, "model")
    context = {
        "chart": chart(scope),
        "per_model": per_model[:20],
        "per_token": [
            (line, line.label.rpartition(" (")[0] or line.label) for line in report_lines(scope, "token")[:20]
        ],
        "totals": report_total(scope),
        "page": page.rows,
        "older": urlencode(chosen | {"before": page.before}) if page.before else "",
        "until": page.until,
        "live": not chosen and not request.GET.get("before"),
        "chosen": chosen,
        "models": [line.label for line in per_model],
        "tokens": list(tokens_of(user).values_list("pk", "name")[:200]),
        "behind": behind,
        "here": "usage",
    }
    return render(request, "portal/usage.html", context)


def _page(
    request: HttpRequest, rows: QuerySet[UsageRecord], refused: QuerySet[RefusedRequest]
) -> tuple[dict[str, str], UsagePage]:
    """The filters in use, and a page of records and refused requests.

    User and token use an index, other filters a bounded scan.
    """
    chosen: dict[str, str] = {}
    named, narrowed = Q(), Q()
    if (token := whole_number(request.GET.get("token"))) is not None:
        chosen["token"] = str(token)
        rows, refused = rows.filter(token=token), refused.filter(token=token)
    if model := request.GET.get("model", "")[:120]:
        chosen["model"] = model
        named = Q(model=model)
    if request.GET.get("failed"):
        chosen["failed"] = "1"
        narrowed &= Q(status__gte=400) | ~Q(end_reason="completed")
    records = (rows.select_related("token"), named & narrowed or None)
    refusals = (refused.select_related("token"), named or None)
    return chosen, merged_page((records, refusals), request.GET.get("before", ""), ROWS)


@login_required
def usage_receipt(request: HttpRequest, request_id: str) -> HttpResponse:
    """The receipt of a request, or why it was refused."""
    user = signed_in_user(request)
    record = usage_of(user).select_related("price", "token").filter(request_id=request_id).first()
    if record is None:
        refusal = get_object_or_404(refusals_of(user).select_related("token"), request_id=request_id)
        error = explained(refusal.error_code)
        return render(request, "portal/refusal.html", {"refusal": refusal, "error": error, "here": "usage"})
    details = receipt(record)
    prices = [(name.replace("_", " "), value) for name, value in (details["price"] or {"usd": {}})["usd"].items()]
    context = {
        "record": record,
        "entries": ledger_entries_of(record),
        "prices": prices,
        "multiplier": details["price_multiplier"],
        "error": explained(record.error_code) if record.error_code else None,
        "here": "usage",
    }
    return render(request, "portal/receipt.html", context)


@login_required
@never_cache
def newest(request: HttpRequest) -> HttpResponse:
    """New rows of the page as JSON, for browsers for which websockets are blocked."""
    after = whole_number(request.GET.get("after"))
    user = signed_in_user(request)
    rows = rows_after(after, user.pk, False) if after else []
    return JsonResponse({"rows": rows, "newest": newest_id()})


@login_required
def export(request: HttpRequest) -> HttpResponseBase:
    """Export all usage records of the user as CSV, streamed."""
    rows: Any = usage_of(signed_in_user(request))
    response = StreamingHttpResponse(csv_chunks(rows, staff=False), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="usage.csv"'
    return response


def newest_id() -> int:
    return UsageRecord.objects.order_by("-pk").values_list("pk", flat=True).first() or 0


def rows_after(last: int, user_id: int, everyone: bool) -> list[dict[str, Any]]:
    """Records with an id above `last`, oldest first, of the user or of everyone, with their HTML rows."""
    query = UsageRecord.objects.filter(pk__gt=last).order_by("pk")
    if not everyone:
        query = query.filter(user_id=user_id)
    return [
        {
            "id": row.pk,
            "request_id": row.request_id,
            "model": row.model,
            "html": render_to_string("portal/usage_row.html", {"row": row}),
        }
        for row in query[:_MOST]
    ]
