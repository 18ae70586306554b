"""Usage, its sums, receipts, and the explanation of routing."""

from datetime import date
from typing import Annotated, Any, Literal

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from ninja import Path, Query, Schema
from pydantic import Field

from accounts.models import User
from accounts.rights import may
from portal.lib import money
from portal.lib.days import parse_day
from relay.admin.channels.explain import explain_for
from relay.admin.records.usage import sees_earnings, sees_money
from relay.manage.requests import cursors, once
from relay.manage.requests.access import known_parameters, need, need_scope
from relay.manage.requests.problems import Missing, invalid
from relay.manage.resources.pages import Page
from relay.manage.resources.routes import ERRORS, router
from relay.manage.resources.schemas import Id, Sent, SentId, list_of
from relay.models import UsageRecord
from relay.models.session import session_of_code
from relay.models.usage import EndReason
from relay.usage import rollup
from relay.usage.paging import usage_page
from relay.usage.query import STAFF_FILTERS, UsageQuery, last_days
from relay.usage.receipts import TOKEN_FIELDS, find_receipt
from relay.usage.refusals import find_refusal
from relay.usage.reports import ReportLine, ReportSums, report_lines, report_total

_MOST_LINES = 200
_DAYS = ("since", "until")
Outcome = Literal[tuple([*EndReason.values, "failed", ""])]  # type: ignore[valid-type]  # made of the model's


class Narrowed(Schema):
    """The period and the filters of usage."""

    since: date | None = Field(None, description="The first day, in the portal's time zone.")
    until: date | None = Field(None, description="The last day.")
    user: Id | None = None
    token: Id | None = None
    channel: Id | None = None
    model: str = Field("", max_length=120)


class UsageAsked(Narrowed):
    session: str = Field("", max_length=64)
    outcome: Outcome = Field("", description="How requests ended; failed: all that did not complete.")  # type: ignore[valid-type]
    code: str = Field("", max_length=64, description="The code of their error.")
    limit: int = Field(50, ge=1, le=200)
    cursor: str = Field("", max_length=400)


class SumsAsked(Narrowed):
    by: Literal["day", "model", "token", "channel", "user"] = "day"


class Usage(Schema):
    """One request. Money is left out for those who do not see it on the pages."""

    object: str
    id: int
    request_id: str
    started_at: str
    user: int | None
    token: int | None
    channel: int | None
    model: str
    upstream_model: str
    endpoint: str
    app: str | None
    session: str | None
    streamed: bool
    status: int
    end_reason: str
    error_code: str | None
    usage: dict[str, Any]
    usage_source: str
    latency_ms: int
    first_token_ms: int | None
    attempts: int
    cost_usd: str | None = None
    charged_usd: str | None = None
    paid_by: str | None = None
    upstream_cost_usd: str | None = None
    margin_usd: str | None = None


class SumLine(Schema):
    """Sums over requests."""

    key: str | int | None = Field(description="A day, the name of a model, or the id of a token, channel or user.")
    label: str
    requests: int
    failed: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    charged_usd: str
    upstream_cost_usd: str
    margin_usd: str


class Sums(Schema):
    object: str
    by: str
    since: str
    until: str
    total: SumLine
    data: list[SumLine]


class Asked(Sent):
    """Whose request for which model is explained."""

    user: SentId | Annotated[str, Field(min_length=1, max_length=254)] = Field(
        description="The id of a user, or, as a text, a user name or an e-mail address."
    )
    model: str = Field(min_length=1, max_length=300)
    token: SentId | None = Field(None, description="One of the user's tokens.")


def _query(asked: Narrowed) -> UsageQuery:
    """The query that a page would have read from its address."""
    sent = {name: str(value) for name, value in asked.model_dump().items() if value not in (None, "")}
    # A page leaves out what makes no sense, and shows so; here it would select everything.
    wrong = {
        side: _("Days are of the years 2000 to 2999.") for side in _DAYS if side in sent and not parse_day(sent[side])
    }
    if "session" in sent and session_of_code(sent["session"]) is None:
        wrong["session"] = _("This is no session: they are 16 digits of hex, as lists of usage show them.")
    if wrong:
        raise invalid({name: [said] for name, said in wrong.items()})
    return UsageQuery.read(sent, STAFF_FILTERS, last_days(30) if isinstance(asked, SumsAsked) else None)


def _usage(row: UsageRecord, money_too: bool, earnings: bool) -> dict[str, Any]:
    found: dict[str, Any] = {
        "object": "usage",
        "id": row.pk,
        "request_id": row.request_id,
        "started_at": row.started_at.isoformat(),
        "user": row.user_id,
        "token": row.token_id,
        "channel": row.channel_id,
        "model": row.model,
        "upstream_model": row.upstream_model,
        "endpoint": row.endpoint,
        "app": row.app or None,
        "session": row.session_code or None,
        "streamed": row.streamed,
        "status": row.status,
        "end_reason": row.end_reason,
        "error_code": row.error_code or None,
        "usage": {name: getattr(row, field) for field, name in TOKEN_FIELDS},
        "usage_source": row.usage_source,
        "latency_ms": row.latency_ms,
        "first_token_ms": row.first_token_ms,
        "attempts": row.attempts,
    }
    if money_too:
        found |= {
            "cost_usd": money.plain(row.cost),
            "charged_usd": money.plain(row.charged),
            "paid_by": row.payer or None,
        }
    if earnings:
        found |= {
            "upstream_cost_usd": money.plain(row.upstream_cost),
            "margin_usd": money.plain(row.charged - row.upstream_cost),
        }
    return found


@router.get(
    "/usage", response={200: list_of("UsageList", Usage), **ERRORS}, tags=["usage"], summary="List: requests",
    operation_id="list_usage", url_name="usage",
)  # fmt: skip
def usage_list(request: HttpRequest, asked: Query[UsageAsked]) -> HttpResponse:
    """Requests that were routed, the newest first. A page may be short, and have a next one, where matches are rare."""
    need_scope(request, "usage")
    known_parameters(request, UsageAsked.model_fields)
    rows = Page(request, UsageRecord).rows()
    filters = asked.model_dump(exclude={"limit", "cursor"})
    before = cursors.read(request.path, filters, asked.cursor) if asked.cursor else ""
    found, narrowed = _query(asked).records(rows)
    page = usage_page(found, narrowed, before, asked.limit)
    seen = sees_money(request), sees_earnings(request)
    return once.answered(
        200,
        {
            "object": "list",
            "data": [_usage(row, *seen) for row in page.rows],
            "next_cursor": cursors.write(request.path, filters, page.before) if page.before else None,
        },
    )


def _line(key: Any, label: str, sums: ReportSums) -> dict[str, Any]:
    return {
        "key": key.isoformat() if isinstance(key, date) else key,
        "label": label,
        "requests": sums.requests,
        "failed": sums.failed,
        "input_tokens": sums.input,
        "cached_input_tokens": sums.cached,
        "output_tokens": sums.output,
        "charged_usd": money.plain(sums.cost),
        "upstream_cost_usd": money.plain(sums.upstream_cost),
        "margin_usd": money.plain(sums.margin),
    }


@router.get(
    "/usage/sums", response={200: Sums, **ERRORS}, tags=["usage"], summary="Sums of usage",
    operation_id="sum_usage", url_name="usage-sums",
)  # fmt: skip
def usage_sums(request: HttpRequest, asked: Query[SumsAsked]) -> HttpResponse:
    """Sums by day, model, token, channel or user, as the report of cost and margin: of the last 30 days by default."""
    need_scope(request, "usage")
    known_parameters(request, SumsAsked.model_fields)
    page = Page(request, UsageRecord)
    page.rows()
    need(page.page.has_earnings_permission(request))
    rollup.catch_up()
    query = _query(asked)
    scope = query.scope()
    lines: list[ReportLine] = report_lines(scope, asked.by, _MOST_LINES)
    return once.answered(
        200,
        {
            "object": "usage_sums",
            "by": asked.by,
            "since": date.fromordinal(scope.first).isoformat(),
            "until": date.fromordinal(scope.last).isoformat(),
            "total": _line(None, "", report_total(scope)),
            "data": [_line(one.key, one.label, one.sums) for one in lines],
        },
    )


@router.get(
    "/receipts/{request_id}", response={200: dict[str, Any], **ERRORS}, tags=["usage"], summary="Read: receipt",
    operation_id="get_receipt", url_name="receipt",
)  # fmt: skip
def read_receipt(
    request: HttpRequest, request_id: Annotated[str, Path(max_length=64, description="The id of a request.")]
) -> HttpResponse:
    """What a request was charged and why; of one that was refused before routing, why."""
    need_scope(request, "usage")
    Page(request, UsageRecord).rows()
    number = request.user.pk or 0
    found = find_receipt(request_id, number) or find_refusal(request_id, number)
    if found is None:
        raise Missing(_("There is no receipt of this request."))
    return once.answered(200, found)


@router.post(
    "/explain", response={200: dict[str, Any], **ERRORS}, tags=["routing"], summary="Explain routing",
    operation_id="explain", url_name="explain",
)  # fmt: skip
def explain(request: HttpRequest, payload: Asked) -> HttpResponse:
    """Where a request of a user for a model would go now, or why it would fail."""
    need_scope(request, "routing")
    need(may(request.user, "relay.view_channel", "accounts.view_user"))
    name = payload.user
    if isinstance(name, int):
        name = User.objects.filter(pk=name).values_list("username", flat=True).first() or ""
        if not name:
            raise Missing(_("There is no user with the id %(id)d.") % {"id": payload.user})
    asked = {"user": name, "model": payload.model, "token": str(payload.token or "")}
    found, error = explain_for(asked, request.user)
    if found is None:
        raise Missing(error)
    return once.answered(200, found.as_json())
