"""one-api's `/api/redemption/`, `/api/log/` and `/api/status`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.db.models import F, Sum
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts.admin.base import request_ip
from accounts.models import User
from accounts.models.fields import FIRST
from portal.lib import clock
from relay.admin.records.usage import sees_money
from relay.billing import redemption
from relay.billing.ledger import movements
from relay.manage import money
from relay.manage.oneapi.answers import (
    QUOTA_PER_USD,
    body_of,
    integer,
    page,
    quota_of,
    reads,
    route,
    seconds,
    text,
    usd_of,
    writes,
)
from relay.manage.requests.access import need, need_scope
from relay.manage.requests.problems import Missing, Problem
from relay.manage.resources import rows
from relay.manage.resources.pages import Page
from relay.manage.resources.resources import BY_PATH
from relay.models import LedgerEntry, RedemptionCode, Token, UsageRecord
from relay.usage import rollup
from relay.usage.reports import ReportScope, report_total

BATCHES: Final = BY_PATH["redemption-batches"]
_TOP_UPS, _REQUESTS = 1, 2  # types of one-api's log
_STATUS: Final = {"open": 1, "disabled": 2, "expired": 2, "redeemed": 3}
_MOST_CODES: Final = 100  # of one call, as in one-api
_MOST_TOKENS: Final = 500  # of the same name
_SEARCHED: Final = 100_000  # requests
_MONTH: Final = timedelta(days=31)
_LAST: Final = 32_503_680_000  # seconds since 1970: the year 3000


# -- redemption codes ------------------------------------------------------------------------------------------------


def _codes(request: HttpRequest) -> tuple[Page, Any]:
    made = rows.page_of(request, BATCHES)
    batches = made.rows().values("pk")
    return made, RedemptionCode.objects.filter(batch__in=batches).select_related("batch")


def _code(code: RedemptionCode) -> dict[str, Any]:
    return {
        "id": code.pk,
        "user_id": code.batch.created_by_id or 0,
        "key": code.hint,
        "status": _STATUS[code.state()],
        "name": code.batch.name,
        "quota": quota_of(code.batch.amount),
        "created_time": seconds(code.batch.created_at),
        "redeemed_time": seconds(code.redeemed_at),
        "count": 0,
    }


def _one(request: HttpRequest, pk: int) -> tuple[Page, RedemptionCode]:
    made, found = _codes(request)
    code = found.filter(pk=pk).first()
    if code is None:
        raise Missing(_("There is no such code."))
    return made, code


@reads("money")
def codes(request: HttpRequest) -> Any:
    return [_code(one) for one in page(request, _codes(request)[1])]


@reads("money")
def search_codes(request: HttpRequest) -> Any:
    typed = request.GET.get("keyword", "").strip()[:80]
    return [_code(one) for one in page(request, _codes(request)[1].filter(batch__name__startswith=typed))]


@reads("money")
def code(request: HttpRequest, pk: int) -> Any:
    return _code(_one(request, pk)[1])


@writes("money")
def add_codes(request: HttpRequest) -> Any:
    """Make codes of one amount, and answer with them."""
    sent = body_of(request)
    count, quota = integer(sent.get("count"), "count", 1), integer(sent.get("quota"), "quota", 0)
    if not 1 <= count <= _MOST_CODES:
        raise Problem(_("A batch has 1 to %(most)d codes.") % {"most": _MOST_CODES})
    made = rows.page_of(request, BATCHES)
    batch = made.add({"name": text(sent.get("name"), "name"), "count": count, "usd": usd_of(quota)})
    return [one["code"] for one in money.codes_in_clear(request, batch.pk)]


@writes("money")
def change_code(request: HttpRequest) -> Any:
    """Disable a code: one that is disabled stays so."""
    sent = body_of(request)
    made, found = _one(request, integer(sent.get("id"), "id", 0))
    if integer(sent.get("status"), "status", 1) != 2:
        raise Problem(_("A code can only be disabled here: send the status 2."))
    _disable(request, made, found)
    return _code(_one(request, found.pk)[1])


@writes("money")
def delete_code(request: HttpRequest, pk: int) -> Any:
    """Disable a code: the ledger refers to those that are redeemed."""
    _disable(request, *_one(request, pk))


def _disable(request: HttpRequest, made: Page, found: RedemptionCode) -> None:
    need(made.page.has_change_permission(request))
    redemption.disable_code(found, actor=request.user, ip=request_ip(request))


# -- the log ---------------------------------------------------------------------------------------------------------


def _moment(request: HttpRequest, name: str) -> datetime | None:
    at = integer(request.GET.get(name), name, 0)
    return datetime.fromtimestamp(min(at, _LAST), UTC) if at > 0 else None


def _whose(request: HttpRequest, user: int | None) -> int | None:
    """The user of a list: of the own one, whose key it is, whatever is asked for. None: of all."""
    name = request.GET.get("username", "")
    if user is not None or not name:
        return user
    return User.objects.filter(username=name[:150]).values_list("pk", flat=True).first() or 0


def _logged(request: HttpRequest, user: int | None) -> Any:
    """The requests that the parameters ask for."""
    found = Page(request, UsageRecord).rows()
    asked = request.GET
    user = _whose(request, user)
    if user is not None:
        found = found.filter(user=user)
    if name := asked.get("token_name", ""):
        tokens = Token.objects.filter(name=name[:60], **({"user": user} if user is not None else {}))
        found = found.filter(token__in=list(tokens.values_list("pk", flat=True)[:_MOST_TOKENS]))
    if name := asked.get("model_name", ""):  # which no index has: only the newest requests are searched
        newest = UsageRecord.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
        found = found.filter(model=name[:120], pk__gt=newest - _SEARCHED)
    if number := integer(asked.get("channel"), "channel", 0):
        found = found.filter(channel=number)
    since, until = _moment(request, "start_timestamp"), _moment(request, "end_timestamp")
    if since is not None:
        found = found.filter(started_at__gte=since)
    return found.filter(started_at__lte=until) if until is not None else found


def _usage(row: UsageRecord, money_too: bool) -> dict[str, Any]:
    return {
        "id": row.pk,
        "user_id": row.user_id or 0,
        "created_at": seconds(row.started_at),
        "type": _REQUESTS,
        "content": row.error_code or row.end_reason,
        "username": row.user.username if row.user is not None else "",
        "token_name": row.token.name if row.token is not None else "",
        "model_name": row.model,
        "quota": quota_of(row.charged) if money_too else 0,
        "prompt_tokens": row.input_tokens,
        "completion_tokens": row.output_tokens,
        "channel": row.channel_id or 0,
        "request_id": row.request_id,
        "elapsed_time": row.latency_ms,
        "is_stream": row.streamed,
        "system_prompt_reset": False,
    }


def _top_ups(request: HttpRequest, user: int | None) -> list[dict[str, Any]]:
    need_scope(request, "money")
    found = Page(request, LedgerEntry).rows().filter(token=None, kind__in=movements.BY_PEOPLE)
    user = _whose(request, user)
    if user is not None:
        found = found.filter(user=user)
    since, until = _moment(request, "start_timestamp"), _moment(request, "end_timestamp")
    if since is not None:
        found = found.filter(at__gte=since)
    if until is not None:
        found = found.filter(at__lte=until)
    return [
        {
            "id": row.pk,
            "user_id": row.user_id,
            "created_at": seconds(row.at),
            "type": _TOP_UPS,
            "content": row.reason,
            "quota": quota_of(row.amount if row.kind != "deduct" else -row.amount),
        }
        for row in page(request, found)
    ]


def _log(request: HttpRequest, user: int | None) -> list[dict[str, Any]]:
    kind = integer(request.GET.get("type"), "type", 0)
    if kind == _TOP_UPS:
        return _top_ups(request, user)
    if kind not in (0, _REQUESTS):  # there are none of one-api's other kinds
        return []
    sees = sees_money(request)
    return [_usage(row, sees) for row in page(request, _logged(request, user).select_related("user", "token"))]


@reads("usage")
def log(request: HttpRequest) -> Any:
    return _log(request, None)


@reads("usage")
def own_log(request: HttpRequest) -> Any:
    return _log(request, request.user.pk or 0)


def _sum(request: HttpRequest, user: int | None) -> dict[str, int]:
    """What requests were charged: to the second in a month or less, otherwise by whole days, whose sums are kept."""
    need(sees_money(request))
    since, until = _moment(request, "start_timestamp"), _moment(request, "end_timestamp")
    if since is not None and (until or clock.now()) - since <= _MONTH:
        found = _logged(request, user).order_by().aggregate(all=Sum(F("cost") - F("shortfall")))
        return {"quota": quota_of(int(found["all"] or 0))}
    Page(request, UsageRecord).rows()
    rollup.catch_up()
    zone = timezone.get_default_timezone()
    first, last = ((at or other).astimezone(zone).date() for at, other in ((since, FIRST), (until, clock.now())))
    user = _whose(request, user)
    chosen: dict[str, Any] = {} if user is None else {"user": user}
    if name := request.GET.get("model_name", ""):
        chosen["model"] = name[:120]
    if number := integer(request.GET.get("channel"), "channel", 0):
        chosen["channel"] = number
    if request.GET.get("token_name"):
        raise Problem(_("Name a “start_timestamp” of the last month to have the sum of a token's requests."))
    if {"user", "channel"} <= chosen.keys():
        raise Problem(_("Name a “start_timestamp” of the last month to have a user's sum at a channel."))
    return {"quota": quota_of(report_total(ReportScope(first.toordinal(), last.toordinal(), **chosen)).cost)}


@reads("usage")
def stat(request: HttpRequest) -> Any:
    return _sum(request, None)


@reads("usage")
def own_stat(request: HttpRequest) -> Any:
    return _sum(request, request.user.pk or 0)


def status(request: HttpRequest) -> Any:
    """What scripts ask before anything else: how many units of quota a dollar is. For everybody."""
    return {
        "version": "",
        "system_name": "AIRelays",
        "server_address": settings.CONFIG.origin(request),
        "quota_per_unit": QUOTA_PER_USD,
        "display_in_currency": True,
        "email_verification": False,
        "github_oauth": False,
        "wechat_login": False,
        "turnstile_check": False,
        "oidc": False,
        "top_up_link": "",
        "chat_link": "",
    }


status.public = True  # type: ignore[attr-defined]

ROUTES: Final = {
    "redemption/": route(GET=codes, POST=add_codes, PUT=change_code),
    "redemption/search": route(GET=search_codes),
    "redemption/<int:pk>": route(GET=code, DELETE=delete_code),
    "log/": route(GET=log),
    "log/stat": route(GET=stat),
    "log/self": route(GET=own_log),
    "log/self/stat": route(GET=own_stat),
    "status": route(GET=status),
}
