"""The user's usage: sums, requests, receipts and export as CSV."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.views.decorators.cache import never_cache

from portal.lib.texts import whole_number
from portal.pages.home import DAYS, chart
from portal.pages.shared.scope import refusals_of, signed_in_user, tokens_of, usage_of
from relay.catalog.price_texts import classes_of, price_words
from relay.error_texts import explained
from relay.models import RefusedRequest, UsageRecord
from relay.usage import rollup
from relay.usage.caches.misses import cache_of
from relay.usage.csv_files import csv_chunks
from relay.usage.paging import merged_page
from relay.usage.query import OWN_FILTERS, Period, UsageQuery, filtered, last_days, months
from relay.usage.receipts import ledger_entries_of, movements_naming, receipt
from relay.usage.reports import report_lines, report_total, today_ordinal
from relay.usage.search import find_request

ROWS = 50
_MOST: Final = 50
_RANGES: Final = (1, 7, 30, 90)


@login_required
def usage(request: HttpRequest) -> HttpResponse:
    """Usage in a period by day, model and token, and its requests, filtered and paged by id."""
    user = signed_in_user(request)
    asked = request.GET.get("q", "").strip()
    named = find_request(asked, usage_of(user), refusals_of(user)) if asked else None
    if named is not None:
        return redirect("receipt", named.request_id)
    behind = rollup.catch_up()
    query = _query(request, last_days(DAYS))
    period = query.period or last_days(DAYS)
    rows, narrowed = query.records(usage_of(user))
    refused, alike = query.refusals(refusals_of(user))
    sources = ((rows.select_related("token"), narrowed), (refused.select_related("token"), alike))
    before = request.GET.get("before", "")
    page = merged_page(sources, before, ROWS)
    scope = query.scope(user=user.pk)
    context = {
        "chart": chart(scope),
        "per_model": report_lines(scope, "model")[:20],
        "per_token": [
            (line, line.label.rpartition(" (")[0] or line.label) for line in report_lines(scope, "token")[:20]
        ],
        "totals": report_total(scope),
        "page": page.rows,
        "refused": any(isinstance(row, RefusedRequest) for row in page.rows),
        "older": query.link(before=page.before) if page.before else "",
        "until": page.until,
        "live": not query.filters and period.last >= today_ordinal() and not before,
        "chosen": query.filters,
        "period": period,
        "ranges": [(days, query.link(days=days)) for days in _RANGES],
        "months": [(value, label) for value, label in months()],
        "month": dict(period.parameters).get("month", ""),
        "export": query.link(),
        "period_value": urlencode(period.parameters),
        "models": [line.label for line in report_lines(query.scope(user=user.pk, model=None, token=None), "model")],
        "tokens": list(tokens_of(user).values_list("pk", "name")[:200]),
        "behind": behind,
        "asked": asked[:120],
        "here": "usage",
    }
    return render(request, "portal/usage.html", context)


def _query(request: HttpRequest, default: Period | None = None) -> UsageQuery:
    """The period and filters of a page or export. `failed` is the old name of the filter for failures."""
    parameters = request.GET.dict()
    if parameters.get("failed"):
        parameters["outcome"] = "failed"
    return UsageQuery.read(parameters, OWN_FILTERS, default)


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
    context = {
        "record": record,
        "entries": ledger_entries_of(record),
        "naming": movements_naming(record),
        "prices": price_words(classes_of(record.price), every=True) if record.price else "",
        "multiplier": details["price_multiplier"],
        "error": explained(record.error_code) if record.error_code else None,
        "cache": cache_of(record),
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
    """Export usage records of the user as CSV, streamed: those that the page shows with the same period and filters."""
    user, query = signed_in_user(request), _query(request)
    response = StreamingHttpResponse(
        csv_chunks(filtered(*query.records(usage_of(user))), filtered(*query.refusals(refusals_of(user)))),
        content_type="text/csv; charset=utf-8",
    )
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
