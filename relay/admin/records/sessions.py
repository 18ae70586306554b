"""The admin pages of sessions: the requests to which a client, such as a coding agent, gave one id."""

from __future__ import annotations

from typing import Any, Final

from django.contrib import admin
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext_lazy as _

from accounts.doors import needs
from accounts.rights import may
from relay.admin.records.usage import sees_earnings, sees_money
from relay.models import SessionSum
from relay.models.session import session_of_code
from relay.usage import rollup
from relay.usage.query import UsageQuery
from relay.usage.sessions.lists import by_agent, by_channel, by_model, cache_share, find_session, session_page

_ROWS: Final = 50
_FILTERS: Final = ("user", "token")


@needs("relay.view_usagerecord")
def sessions_view(request: HttpRequest) -> HttpResponse:
    """Show the sessions that were used last: of everyone, or of a user or token."""
    behind = rollup.catch_up()
    query = UsageQuery.read(request.GET, _FILTERS, by_address=may(request.user, "accounts.view_user"))
    page = session_page(SessionSum.objects.filter(**query.filters), request.GET.get("before", ""), _ROWS)
    context = {
        **_context(request),
        "title": _("Sessions"),
        "rows": [(row, query.link(user=row.whole.user_id)) for row in page.rows],
        "older": query.link(before=page.before) if page.before else "",
        "behind": behind,
        "query": query,
        "names": query.names(),
        "user_name": query.user_name() or query.nobody,
        "narrowed": bool(query.filters),
    }
    return render(request, "admin/relay/session/list.html", context)


@needs("relay.view_usagerecord")
def session_view(request: HttpRequest, user_id: int, code: str) -> HttpResponse:
    """Show one session: what it cost, its models, channels and agents."""
    behind = rollup.catch_up()
    whole = find_session(user_id, session_of_code(code))
    if whole is None:
        raise Http404
    agents = by_agent(whole)
    query = UsageQuery(None, {"user": user_id, "session": code})
    tables: list[tuple[Any, Any, Any]] = [(_("Models"), _("Model"), by_model(whole))]
    tables.append((_("Channels"), _("Channel"), by_channel(whole)))
    if any(line.key for line in agents):
        tables.append((_("Agents"), _("Agent"), agents))
    context = {
        **_context(request),
        "title": _("Session %(code)s") % {"code": code},
        "whole": whole,
        "time": whole.last_at - whole.first_at,
        "cache_share": cache_share(whole),
        "margin": whole.charged - whole.upstream_cost,
        "tables": tables,
        "behind": behind,
        "links": {
            "requests": query.link(),
            "failed": query.link(outcome="failed"),
            "of_user": UsageQuery(None, {"user": user_id}).link(),
        },
    }
    return render(request, "admin/relay/session/session.html", context)


def _context(request: HttpRequest) -> dict[str, Any]:
    return {
        **admin.site.each_context(request),
        "money": sees_money(request),
        "earnings": sees_earnings(request),
    }
