"""The data of the admin's front page. Sums come from daily roll-ups, so their cost does not depend on traffic."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Final

from django.conf import settings
from django.urls import reverse
from django.utils import formats
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from portal.admin.todos import Todo, todos
from portal.lib import clock, money
from portal.pages.shared.charts import Bar, bars
from relay.channels import status as channel_status
from relay.error_texts import CODES, entries
from relay.models import Channel, Token, Worker
from relay.models.usage import EndReason
from relay.providers.vendors import BUILT_IN, PRIVATE
from relay.tokens.open_relay import MARK, is_closed
from relay.usage import rollup
from relay.usage.conversations.switches import switch_sums
from relay.usage.durations.classes import percentile
from relay.usage.query import UsageQuery, last_days
from relay.usage.refusals import refusal_sums
from relay.usage.reports import (
    ReportScope,
    ReportSums,
    beginning_of,
    error_counts,
    first_token_times,
    report_lines,
)

RANGES: Final = (1, 7, 30)
_MOST_TODO: Final = 14
_GONE_AFTER: Final = timedelta(seconds=90)


@dataclass(frozen=True, slots=True)
class Figure:
    """A number at the top of the page."""

    label: str
    value: str  # formatted for people
    hint: str = ""
    url: str = ""  # page with the details


@dataclass(frozen=True, slots=True)
class ErrorLine:
    """Failed requests with the same end reason and error code."""

    label: str
    code: str  # may be empty
    count: int
    share: int  # percent of all failures
    url: str  # the list of these requests
    explained: bool  # whether the error catalogue has the code


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """Requests refused before routing with the same error code, and what ends them."""

    code: str
    count: int
    users: int
    remedy: str  # empty: the code has no entry in the catalogue
    url: str  # the list of these requests


@dataclass(frozen=True, slots=True)
class Board:
    """Everything that the front page shows."""

    days: int  # the chosen period, one of `ranges`
    figures: list[Figure]
    chart: list[Bar]  # requests by day, 30 days
    table: list[tuple[str, ReportSums]]  # the chart as numbers, newest day first
    errors: list[ErrorLine]  # most frequent first
    refused: list[RefusedLine]  # most frequent first
    todo: list[Todo]  # most urgent first, at most _MOST_TODO
    more: int  # how many more there are
    channels: list[channel_status.ChannelStatus]
    behind: int  # requests that the sums do not include yet
    money: bool  # whether the user may see what users pay
    earnings: bool  # whether the user may see what upstreams cost and what is earned
    open_relay: Todo | None = None  # who may call without a token, and the token that stands for them; None: nobody
    setup: bool = False  # no channel but the built-in ones exists, and the reader may add one
    ranges: tuple[int, ...] = field(default=RANGES)


def board(person: Any, days: int, with_money: bool, earnings: bool) -> Board:
    """Collect the front page in at most 30 queries; single requests are read only if they are not rolled up yet."""
    behind = rollup.catch_up()
    days = days if days in RANGES else 1
    month = {line.key.toordinal(): line.sums for line in report_lines(ReportScope.days(30), "day")}
    scope = ReportScope.days(days)
    sums = sum((month[day] for day in month if day >= scope.first), ReportSums())
    shown = [(day, month.get(day, ReportSums())) for day in range(scope.last - 29, scope.last + 1)]
    titles = [
        f"{formats.date_format(date.fromordinal(day), 'SHORT_DATE_FORMAT')}: {one.requests:,}"
        + (f", {money.show(one.cost)}" if with_money else "")
        for day, one in shown
    ]
    channels = channel_status.channel_statuses()
    todo = todos(person, channels, earnings)
    return Board(
        days=days,
        figures=_figures(scope, sums, with_money, earnings),
        chart=bars([one.requests for _day, one in shown], titles),
        table=[
            (formats.date_format(date.fromordinal(day), "DATE_FORMAT"), one)
            for day, one in reversed(shown)
            if one.requests
        ],
        errors=_errors(scope),
        refused=_refused(scope),
        todo=todo[:_MOST_TODO],
        more=max(0, len(todo) - _MOST_TODO),
        channels=channels[:40],
        behind=behind,
        money=with_money,
        earnings=earnings,
        open_relay=_open_relay(),
        setup=not Channel.objects.exclude(provider__in=BUILT_IN | PRIVATE).exists(),
    )


def _open_relay() -> Todo | None:
    if settings.CONFIG.require_bearer_auth:
        return None
    token = Token.objects.filter(built_in=MARK).values_list("pk", flat=True).first()
    url = reverse("admin:relay_token_change", args=[token]) if token is not None else ""
    if is_closed():
        return Todo(
            _("The open relay is closed: its token was revoked, or its user disabled. Clients need a token."), url
        )
    if settings.CONFIG.open_relay_on_network:
        return Todo(_("The relay is open: everybody who reaches it may call /v1 without a token."), url, True)
    return Todo(_("The relay is open: programs on this machine may call /v1 without a token."), url)


def running_request_count() -> int:
    """Running requests of all workers, as they reported within the last half minute."""
    return sum(
        int(worker.state.get("running", 0)) for worker in Worker.objects.filter(seen_at__gte=clock.now() - _GONE_AFTER)
    )


def _figures(scope: ReportScope, sums: ReportSums, with_money: bool, earnings: bool) -> list[Figure]:
    times = first_token_times(scope)
    half, most = percentile(times, 0.5), percentile(times, 0.95)
    usage, query = reverse("admin:relay_usagerecord_changelist"), _query(scope)
    left, caches = switch_sums(beginning_of(scope.first)), reverse("admin-caches")
    found = [
        Figure(_("Requests"), f"{sums.requests:,}", url=usage + query.link()),
        Figure(
            _("Failed"),
            f"{100 * sums.failed / sums.requests:.2f} %" if sums.requests else "—",
            ngettext("%(n)s request", "%(n)s requests", sums.failed) % {"n": f"{sums.failed:,}"},
            usage + query.link(outcome="failed"),
        ),
        Figure(
            _("Tokens in"),
            _compact(sums.input),
            _("%(share)s from caches") % {"share": f"{100 * sums.cached / sums.input:.0f} %"} if sums.input else "",
            caches,
        ),
        Figure(_("Tokens out"), _compact(sums.output)),
        Figure(
            _("First token, half of them within"),
            f"{half:,} ms" if half is not None else "—",
            _("95 of 100 within %(ms)s ms") % {"ms": f"{most:,}"} if most is not None else "",
        ),
        Figure(
            _("Left a warm cache"),
            f"{left.switches:,}",
            _("estimated cost %(cost)s") % {"cost": money.show(left.cost)} if with_money and left.switches else "",
            caches,
        ),
        Figure(_("Running now"), f"{running_request_count():,}", url=reverse("admin-running")),
    ]
    if with_money:
        report = f"{reverse('admin:relay_usagerecord_cost_report')}?days={scope.last - scope.first + 1}"
        found[2:2] = [Figure(_("Charged"), money.show(sums.cost), url=report if earnings else "")]
    if earnings:
        margin = f"{100 * sums.margin / sums.cost:.0f} %" if sums.cost else ""
        said = margin and _("%(share)s of what was charged") % {"share": margin}
        found[3:3] = [Figure(_("Margin"), money.show(sums.margin), said)]
    return found


def _query(scope: ReportScope) -> UsageQuery:
    """What links of the front page show: the period of its figures."""
    return UsageQuery(last_days(scope.last - scope.first + 1), {})


def _compact(count: int) -> str:
    """Abbreviate a large number: 1,234 · 12.3 K · 4.56 M."""
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (10_000, "K")):
        if count >= size:
            return f"{count / (1000 if unit == 'K' else size):.3g} {unit}" if unit != "K" else f"{count / 1000:.1f} K"
    return f"{count:,}"


def _errors(scope: ReportScope) -> list[ErrorLine]:
    found = error_counts(scope)
    whole = sum(count for _reason, _code, count in found) or 1
    labels = dict(EndReason.choices)
    usage, query = reverse("admin:relay_usagerecord_changelist"), _query(scope)
    return [
        ErrorLine(
            str(labels.get(reason, reason)),
            code,
            count,
            round(100 * count / whole),
            usage + query.link(outcome=reason, code=code or None),
            code in CODES,
        )
        for reason, code, count in found[:8]
    ]


def _refused(scope: ReportScope) -> list[RefusedLine]:
    usage, query = reverse("admin:relay_usagerecord_changelist"), _query(scope)
    catalogue = {entry.code: entry for entry in entries()}
    return [
        RefusedLine(
            one.code,
            one.requests,
            one.users,
            catalogue[one.code].remedy if one.code in catalogue else "",
            usage + query.link(outcome="refused", code=one.code or None),
        )
        for one in refusal_sums(beginning_of(scope.first))[:6]
    ]


# -- problems that need a person ---------------------------------------------------------------------------------------
