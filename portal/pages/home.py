"""The front page of users: balance, budgets, rate limits and usage."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date, timedelta
from urllib.parse import urlencode

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import formats
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from accounts.models import GroupSettings, User
from portal.lib import clock, money
from portal.pages.shared.charts import Bar, bars
from portal.pages.shared.incidents import open_incidents
from portal.pages.shared.scope import signed_in_user, tokens_of
from relay.catalog.offers import usable_offers
from relay.error_texts import explained
from relay.usage import rollup
from relay.usage.limits import spending_limits
from relay.usage.refusals import refusal_sums
from relay.usage.reports import ReportLine, ReportScope, ReportSums, daily_sums_by, report_lines, report_total

DAYS = 30
_MOST = 6
_MOST_BARS = 366


def admin_login(request: HttpRequest) -> HttpResponse:
    """Redirect to the portal's sign-in page, which is throttled, instead of the admin's own.

    Raises PermissionDenied for users who are signed in but not staff.
    """
    if request.user.is_authenticated:
        if not request.user.is_staff:
            raise PermissionDenied
        return redirect("admin:index")
    return redirect(
        f"{reverse('account_login')}?{urlencode({'next': request.GET.get('next', reverse('admin:index'))})}"
    )


@dataclass(frozen=True, slots=True)
class OverviewRow:
    """A row of small multiples: a model or token with its sums and a chart of its days."""

    line: ReportLine
    name: str
    bars: list[Bar]


@dataclass(frozen=True, slots=True)
class Chart:
    """A bar chart of cost by day, or of requests if nothing has a cost, with the sums of the days."""

    of_cost: bool  # False: of requests
    bars: list[Bar]  # one for each day
    days: list[ReportLine]  # only days with requests, newest first
    first: date
    last: date


def chart(scope: ReportScope) -> Chart:
    of_day = {line.key: line for line in report_lines(scope, "day")}
    # More bars than this could not be told apart; the table has every day.
    days = [date.fromordinal(day) for day in range(max(scope.first, scope.last - _MOST_BARS + 1), scope.last + 1)]
    sums = [of_day[day].sums if day in of_day else ReportSums() for day in days]
    of_cost = any(one.cost for one in sums)
    titles = [day_title(day, one) for day, one in zip(days, sums, strict=True)]
    return Chart(
        of_cost,
        bars([one.cost if of_cost else one.requests for one in sums], titles),
        [of_day[day] for day in sorted(of_day, reverse=True)],
        days[0] if days else date.fromordinal(scope.first),
        days[-1] if days else date.fromordinal(scope.first),
    )


def day_title(day: date, sums: ReportSums) -> str:
    requests = ngettext("%(n)d request", "%(n)d requests", sums.requests) % {"n": sums.requests}
    return f"{formats.date_format(day, 'SHORT_DATE_FORMAT')}: {money.show(sums.cost)}, {requests}"


def small_multiples(scope: ReportScope, by: str, of_cost: bool) -> list[OverviewRow]:
    """The most expensive models or tokens, each with a small chart of its days; all charts have the same scale."""
    found = daily_sums_by(scope, by, _MOST)
    top = max(
        (max((one.cost if of_cost else one.requests for one in days), default=0) for _line, days in found), default=0
    )
    rows = []
    for line, days in found:
        titles = [day_title(date.fromordinal(scope.first + offset), one) for offset, one in enumerate(days)]
        name = line.label.rpartition(" (")[0] or line.label if by == "token" else line.label
        rows.append(
            OverviewRow(
                line, name, bars([one.cost if of_cost else one.requests for one in days], titles, top=top, height=24)
            )
        )
    return rows


def limits_of(user: User) -> list[tuple[str, int]]:
    """Rate limits of a user as (label, limit): the user's own, otherwise the highest of the user's groups."""
    groups = list(GroupSettings.objects.filter(group__user=user))
    found = []
    for own, member, label in (
        (user.max_rpm, "member_rpm", _("requests a minute")),
        (user.max_tpm, "member_tpm", _("tokens a minute")),
        (user.max_rpd, "member_rpd", _("requests a day")),
        (user.max_concurrency, "member_concurrency", _("requests at once")),
    ):
        theirs = [getattr(group, member) for group in groups]
        limit = own if own is not None else None if not theirs or None in theirs else max(theirs)
        if limit is not None:
            found.append((label, limit))
    return found


@login_required
def home(request: HttpRequest) -> HttpResponse:
    user = signed_in_user(request)
    behind = rollup.catch_up()
    scope = ReportScope.days(DAYS, user=user.pk)
    accounts = spending_limits(user.pk, None, time.time())
    days, totals = chart(scope), report_total(scope)
    refused = refusal_sums(clock.now() - timedelta(days=1), user.pk)
    context = {
        "refused": sum(one.requests for one in refused),
        "refused_why": explained(refused[0].code) if refused else None,
        "wallet": next((line for line in accounts if line.kind == "wallet"), None),
        "incidents": open_incidents(user),
        "budgets": [line for line in accounts if line.kind == "budget"],
        "today": report_total(ReportScope.days(1, user=user.pk)),
        "totals": totals,
        "limits": limits_of(user),
        "chart": days,
        "models": small_multiples(scope, "model", days.of_cost),
        "tokens": small_multiples(scope, "token", days.of_cost),
        "has_token": tokens_of(user).exists(),
        "model_count": len(usable_offers(user)) if not totals.requests else 0,
        "behind": behind,
        "here": "home",
    }
    return render(request, "portal/home.html", context)
