"""The user's sessions: conversations with apps that name them, such as coding agents."""

from __future__ import annotations

from typing import Final

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone

from portal.pages.shared.scope import sessions_of, signed_in_user, usage_of
from relay.models.session import session_of_code
from relay.usage import rollup
from relay.usage.paging import usage_page
from relay.usage.query import UsageQuery
from relay.usage.sessions.lists import by_agent, by_model, cache_share, find_session, session_page

_ROWS: Final = 30
_REQUESTS: Final = 50
_FAILED: Final = 10


@login_required
def session_list(request: HttpRequest) -> HttpResponse:
    """The sessions that were used last, paged by time."""
    behind = rollup.catch_up()
    page = session_page(sessions_of(signed_in_user(request)), request.GET.get("before", ""), _ROWS)
    return render(request, "portal/sessions.html", {"page": page, "behind": behind, "here": "sessions"})


@login_required
def session_detail(request: HttpRequest, code: str) -> HttpResponse:
    """One session: what it cost, its models and agents, its failures and requests."""
    user = signed_in_user(request)
    behind = rollup.catch_up()
    whole = find_session(user.pk, session_of_code(code))
    if whole is None:
        raise Http404
    query = UsageQuery(None, {"session": code})
    days = {"since": timezone.localdate(whole.first_at), "until": timezone.localdate(whole.last_at)}
    rows, _ = query.records(usage_of(user))
    failed = usage_page(*UsageQuery(None, {"session": code, "outcome": "failed"}).records(usage_of(user)), "", _FAILED)
    page = usage_page(rows, None, request.GET.get("before", ""), _REQUESTS)
    agents = by_agent(whole)
    context = {
        "whole": whole,
        "time": whole.last_at - whole.first_at,
        "cache_share": cache_share(whole),
        "models": by_model(whole),
        "agents": agents if any(line.key for line in agents) else [],
        "failed": failed.rows,
        "more_failed": query.link(outcome="failed", **days) if failed.before else "",
        "page": page.rows,
        "older": f"?before={page.before}" if page.before else "",
        "all": query.link(**days),
        "behind": behind,
        "here": "sessions",
    }
    return render(request, "portal/session.html", context)
