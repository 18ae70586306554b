"""The status page: states and latencies of models, and incidents. The setting STATUS_PAGE decides who may see it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import formats
from django.utils.translation import gettext as _

from accounts.models import User
from portal.lib import clock
from portal.pages.shared.incidents import MOST_MODELS, incidents_of
from relay.catalog.offers import models_of
from relay.channels import status as channel_status
from relay.models import ChannelDay, Model, TallyDay
from relay.usage import rollup
from relay.usage.durations.classes import percentile
from relay.usage.reports import today_ordinal

DAYS = 30


@dataclass(frozen=True, slots=True)
class StatusDay:
    """A day of a model."""

    state: str  # "good", "some" or "bad" by the share of failures; "none" without requests
    title: str


@dataclass(frozen=True, slots=True)
class StatusLine:
    """A row of the page."""

    model: Model
    state: str
    days: list[StatusDay]  # DAYS of them, oldest first
    share: str  # of requests without failure, formatted; a dash without requests
    first_token: int | None  # median of the last week in ms


def status(request: HttpRequest) -> HttpResponse:
    allowed = settings.CONFIG.status_page
    if allowed == "off":
        raise Http404
    if allowed == "users" and not request.user.is_authenticated:
        return redirect_to_login(request.get_full_path())
    user = request.user
    shown = (
        models_of(user) if isinstance(user, User) else Model.objects.filter(enabled=True, is_open=True).order_by("name")
    )
    models = [model for model in shown[:MOST_MODELS] if not model.name.endswith("*")]
    rollup.catch_up()
    incidents = incidents_of(models, DAYS)
    context = {
        "lines": _lines(models, set(user.groups.values_list("pk", flat=True)) if isinstance(user, User) else set()),
        "open": [incident for incident in incidents if incident.resolved_at is None],
        "past": [incident for incident in incidents if incident.resolved_at is not None],
        "days": DAYS,
        "at": clock.now(),
        "here": "status",
    }
    return render(request, "portal/status.html", context)


def _lines(models: list[Model], groups: set[int]) -> list[StatusLine]:
    today = today_ordinal()
    first = today - DAYS + 1
    names = [model.name for model in models]
    counts: dict[str, dict[int, tuple[int, int]]] = {}
    for name, day, requests, faults in ChannelDay.objects.filter(day__gte=first, model__in=names).values_list(
        "model", "day", "requests", "faults"
    ):
        before = counts.setdefault(name, {}).get(day, (0, 0))
        counts[name][day] = (before[0] + requests, before[1] + faults)
    times: dict[str, dict[int, int]] = {}
    for name, value, count in TallyDay.objects.filter(kind="first", day__gte=today - 6, model__in=names).values_list(
        "model", "value", "count"
    ):
        of = times.setdefault(name, {})
        of[int(value)] = of.get(int(value), 0) + count
    states = channel_status.model_states(models, groups)
    found = []
    for model in models:
        mine = counts.get(model.name, {})
        requests, faults = sum(one[0] for one in mine.values()), sum(one[1] for one in mine.values())
        share = f"{100 * (requests - faults) / requests:.2f} %" if requests else "—"
        days = [_status_day(first + offset, *mine.get(first + offset, (0, 0))) for offset in range(DAYS)]
        found.append(StatusLine(model, states[model.pk], days, share, percentile(times.get(model.name, {}), 0.5)))
    return found


def _status_day(day: int, requests: int, faults: int) -> StatusDay:
    when = formats.date_format(date.fromordinal(day), "SHORT_DATE_FORMAT")
    if not requests:
        return StatusDay("none", _("%(day)s: no requests") % {"day": when})
    share = faults / requests
    text = _("%(day)s: %(share)s of %(n)s requests went well") % {
        "day": when,
        "share": f"{100 * (1 - share):.1f} %",
        "n": requests,
    }
    return StatusDay("good" if share < 0.02 else "some" if share < 0.25 else "bad", text)
