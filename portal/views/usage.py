from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from django.contrib.auth.decorators import login_required
from django.db.models import Count, Q, Sum
from django.db.models.functions import TruncDate
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from accounts.models import User
from portal.views.scope import usage_of

DAYS = 30
ROWS = 50


@dataclass(frozen=True, slots=True)
class Day:
    """One bar of the chart. `height` in percent of the busiest day."""

    day: date
    requests: int
    tokens: int
    failed: int
    height: float


@login_required
def usage(request: HttpRequest) -> HttpResponse:
    """My usage of the last 30 days: by day, by model, and the latest requests, paged by id."""
    user = request.user
    assert isinstance(user, User)  # noqa: S101
    today = timezone.localdate()
    first = today - timedelta(days=DAYS - 1)
    since = timezone.make_aware(datetime.combine(first, time()))
    recent = usage_of(user).filter(started_at__gte=since)
    sums: dict[str, Any] = {"requests": Count("pk"), "failed": Count("pk", filter=Q(status__gte=400)), "input": Sum("input_tokens"), "output": Sum("output_tokens")}
    by_day = recent.annotate(day=TruncDate("started_at")).values("day").annotate(**sums).order_by("day")
    per_day: dict[Any, dict[str, Any]] = {row["day"]: dict(row) for row in by_day}
    by_model: list[dict[str, Any]] = [dict(row) for row in recent.values("model").annotate(**sums)]
    per_model = sorted(by_model, key=lambda row: int(row["requests"]), reverse=True)[:20]
    before = request.GET.get("before", "")
    rows = usage_of(user).filter(started_at__gte=since).order_by("-pk")
    if before.isdigit():
        rows = rows.filter(pk__lt=int(before))
    page = list(rows[: ROWS + 1])
    context = {
        "days": _days(first, per_day),
        "per_model": per_model,
        "totals": recent.aggregate(**sums),
        "page": page[:ROWS],
        "next": page[ROWS - 1].pk if len(page) > ROWS else None,
        "first_page": not before,
        "here": "usage",
    }
    return render(request, "portal/usage.html", context)


def _days(first: date, rows: dict[Any, dict[str, Any]]) -> list[Day]:
    busiest = max((row["requests"] for row in rows.values()), default=0) or 1
    found = []
    for offset in range(DAYS):
        day = first + timedelta(days=offset)
        row = rows.get(day, {})
        requests = row.get("requests", 0)
        tokens = (row.get("input") or 0) + (row.get("output") or 0)
        found.append(Day(day, requests, tokens, row.get("failed", 0), 100 * requests / busiest))
    return found
