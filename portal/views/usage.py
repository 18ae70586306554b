"""My usage: sums, requests, receipts, and all of it as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, render

from portal.views.scope import signed_in_user, usage_of
from relay.receipts import entries_of, receipt
from relay.reports import Line, Sums, csv_pieces, lines, since, total

DAYS = 30
ROWS = 50


@dataclass(frozen=True, slots=True)
class Day:
    """One bar of the chart. `height` in percent of the dearest day, or of the busiest while nothing costs anything."""

    day: date
    sums: Sums
    height: float


@login_required
def usage(request: HttpRequest) -> HttpResponse:
    """My usage of the last 30 days: by day, by model, by token, and the latest requests, paged by id."""
    user = signed_in_user(request)
    first, beginning = since(DAYS)
    recent = usage_of(user).filter(started_at__gte=beginning)
    before = request.GET.get("before", "")
    rows = recent.select_related("token").order_by("-pk")
    if before.isdigit() and len(before) < 19:
        rows = rows.filter(pk__lt=int(before))
    page = list(rows[: ROWS + 1])
    by_day = lines(recent, "day")
    context = {
        "days": _days(first, by_day),
        "by_day": [line for line in reversed(by_day) if line.sums.requests],
        "per_model": lines(recent, "model")[:20],
        "per_token": [(line, line.label.rpartition(" (")[0] or line.label) for line in lines(recent, "token")[:20]],
        "totals": total(recent),
        "page": page[:ROWS],
        "next": page[ROWS - 1].pk if len(page) > ROWS else None,
        "first_page": not before,
        "here": "usage",
    }
    return render(request, "portal/usage.html", context)


@login_required
def usage_receipt(request: HttpRequest, request_id: str) -> HttpResponse:
    """What one request cost, and why."""
    record = get_object_or_404(usage_of(signed_in_user(request)).select_related("price", "token"), request_id=request_id)
    told = receipt(record)
    prices = [(name.replace("_", " "), value) for name, value in (told["price"] or {"usd": {}})["usd"].items()]
    context = {"record": record, "entries": entries_of(record), "prices": prices, "multiplier": told["price_multiplier"], "here": "usage"}
    return render(request, "portal/receipt.html", context)


@login_required
def export(request: HttpRequest) -> HttpResponseBase:
    """All requests that are kept, as CSV, streamed."""
    rows: Any = usage_of(signed_in_user(request))
    response = StreamingHttpResponse(csv_pieces(rows, staff=False), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = 'attachment; filename="usage.csv"'
    return response


def _days(first: date, rows: Sequence[Line]) -> list[Day]:
    of_day = {line.key: line.sums for line in rows}
    dearest = max((sums.cost for sums in of_day.values()), default=0)
    busiest = max((sums.requests for sums in of_day.values()), default=0) or 1
    found = []
    for offset in range(DAYS):
        day = first + timedelta(days=offset)
        sums = of_day.get(day, Sums())
        found.append(Day(day, sums, 100 * sums.cost / dearest if dearest else 100 * sums.requests / busiest))
    return found
