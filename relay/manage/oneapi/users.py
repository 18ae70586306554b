"""one-api's `/api/user/`, `/api/topup` and `/api/group/`."""

from __future__ import annotations

from typing import Any, Final

from django.contrib.auth.models import Group
from django.db.models import Sum
from django.http import HttpRequest
from django.utils.translation import gettext as _

from accounts.models import User
from relay.catalog.offers import usable_offers
from relay.manage import money
from relay.manage.oneapi.answers import (
    body_of,
    changed,
    integer,
    page,
    quota_of,
    reads,
    route,
    searched,
    text,
    usd_of,
    writes,
)
from relay.manage.requests.problems import Missing, Problem
from relay.manage.resources import rows
from relay.manage.resources.pages import Page
from relay.manage.resources.resources import BY_PATH
from relay.models import MonthSum
from relay.usage import rollup
from relay.usage.reports import today_ordinal

USERS: Final = BY_PATH["users"]
_MOST_GROUPS: Final = 1000
_MONTHS: Final = 60  # whose requests are counted


def _all(request: HttpRequest) -> tuple[Page, Any]:
    made = rows.page_of(request, USERS)
    return made, rows.rows_of(USERS, made)


def _shown(made: Page, found: list[Any]) -> list[dict[str, Any]]:
    """Users in one-api's form. Balances are 0 for those who do not see them."""
    latest = rollup.month_of(today_ordinal())
    months = range(latest - _MONTHS + 1, latest + 1)
    counts = dict(
        MonthSum.objects.filter(kind="user", month__in=months, subject__in=[user.pk for user in found])
        .values_list("subject")
        .annotate(n=Sum("requests"))
    )
    sees = made.page._sees_wallet(made.request)
    used = "used" not in made.hidden()
    return [
        {
            "id": user.pk,
            "username": user.username,
            "password": "",
            "display_name": user.get_full_name() or user.username,
            "role": 100 if user.is_superuser else 10 if user.is_staff else 1,
            "status": 1 if user.is_active else 2,
            "email": user.email,
            "github_id": "",
            "wechat_id": "",
            "lark_id": "",
            "oidc_id": "",
            "verification_code": "",
            "access_token": "",
            "quota": quota_of(user.wallet_balance or 0) if sees else 0,
            "used_quota": quota_of(user.wallet_used or 0) if used else 0,
            "request_count": counts.get(user.pk) or 0,
            "group": next(iter(sorted(group.name for group in user.groups.all())), "default"),
            "aff_code": "",
            "inviter_id": 0,
        }
        for user in found
    ]


def _one(request: HttpRequest, pk: int) -> tuple[Page, Any]:
    made, found = _all(request)
    user = found.filter(pk=pk).first()
    if user is None:
        raise Missing(_("There is no such user."))
    return made, user


@reads("users")
def listed(request: HttpRequest) -> Any:
    made, found = _all(request)
    return _shown(made, page(request, found))


@reads("users")
def search(request: HttpRequest) -> Any:
    made, found = _all(request)
    return _shown(made, searched(request, made, found))


@reads("users")
def read(request: HttpRequest, pk: int) -> Any:
    made, user = _one(request, pk)
    return _shown(made, [user])[0]


@reads("users")
def own(request: HttpRequest) -> Any:
    """Whose key it is."""
    return read.__wrapped__(request, request.user.pk or 0)  # type: ignore[attr-defined]


@reads("models")
def available_models(request: HttpRequest) -> Any:
    """What the owner of the key may use."""
    user = User.objects.get(pk=request.user.pk or 0)
    return [offer.model.name for offer in usable_offers(user)]


def _other_groups(user: User) -> list[int]:
    """The groups of a user that one-api's form does not show, which stay: roles and limits among them."""
    found = sorted(user.groups.values_list("name", "pk"))
    return [pk for _name, pk in found[1:]]


def _group(name: str) -> list[int]:
    group = Group.objects.filter(name=name).first() if name else None
    if group is None and name in ("", "default"):
        return []
    if group is None:
        raise Missing(_("There is no group “%(group)s”.") % {"group": name[:150]})
    return [group.pk]


def _display_name(sent: dict[str, Any]) -> dict[str, Any]:
    return {"first_name": text(sent["display_name"], "display_name")} if sent.get("display_name") else {}


@writes("users")
def add(request: HttpRequest) -> Any:
    sent, made = body_of(request), rows.page_of(request, USERS)
    first = {
        "username": text(sent.get("username"), "username"),
        "password": text(sent.get("password"), "password"),
        "email": text(sent.get("email"), "email"),
    }
    if not first["username"] or not first["password"]:
        raise Problem(_("Name a “username” and a “password”."))
    user = made.add(USERS.values(first, True))
    later = _display_name(sent) | ({"groups": _group(text(sent["group"], "group"))} if sent.get("group") else {})
    if later:
        made.change(made.find(user.pk, lock=True), later)


@writes("users")
def change(request: HttpRequest) -> Any:
    """Change a user. Balances are changed by top-ups: what was read a moment ago is not what is left now."""
    sent = body_of(request)
    made, user = _one(request, integer(sent.get("id"), "id", 0))
    shown = _shown(made, [user])[0]
    if "quota" in sent and integer(sent["quota"], "quota", 0) != shown["quota"]:
        raise Problem(_("A quota is not set here. Send what is to be added to POST /api/topup."))
    if sent.get("password"):
        raise Problem(_("Passwords are not set here. Send the user a link, on the user's page."))
    sent = changed(sent, shown)
    values = {name: text(sent[name], name) for name in ("username", "email") if sent.get(name)} | _display_name(sent)
    if sent.get("group"):
        values["groups"] = [*_other_groups(user), *_group(text(sent["group"], "group"))]
    if sent.get("status"):
        values["is_active"] = integer(sent["status"], "status", 1) == 1
    made.change(made.find(user.pk, lock=True), values)


def _switch(request: HttpRequest, user: User, active: bool) -> dict[str, int]:
    made = rows.page_of(request, USERS)
    if not active and user.pk == request.user.pk:
        raise Problem(_("You cannot disable yourself. Ask another administrator."))
    made.change(made.find(user.pk, lock=True), {"is_active": active})
    return {"role": 100 if user.is_superuser else 10 if user.is_staff else 1, "status": 1 if active else 2}


@writes("users")
def manage(request: HttpRequest) -> Any:
    """Enable or disable a user; deleted ones are disabled, since their usage keeps its owner."""
    sent = body_of(request)
    found = _all(request)[1].filter(username=text(sent.get("username"), "username")).first()
    if found is None:
        raise Missing(_("There is no such user."))
    action = text(sent.get("action"), "action")
    if action not in ("enable", "disable", "delete"):
        raise Problem(_("Roles are given in the administration. Actions here are enable, disable and delete."))
    return _switch(request, found, action == "enable")


@writes("users")
def delete(request: HttpRequest, pk: int) -> Any:
    _switch(request, _one(request, pk)[1], False)


@writes("money")
def top_up(request: HttpRequest) -> Any:
    """Add units of quota to a balance."""
    sent = body_of(request)
    quota = integer(sent.get("quota"), "quota", 0)
    if quota <= 0:
        raise Problem(_("“%(name)s” must be more than nothing.") % {"name": "quota"})
    reason = text(sent.get("remark"), "remark")[:200] or _("Top-up over the API")
    money.book(request, integer(sent.get("user_id"), "user_id", 0), usd_of(quota), reason, adds=True)


@reads("users")
def groups(request: HttpRequest) -> Any:
    found = rows.rows_of(BY_PATH["groups"], rows.page_of(request, BY_PATH["groups"]))
    return ["default", *found.order_by("name").values_list("name", flat=True)[:_MOST_GROUPS]]


ROUTES: Final = {
    "user/": route(GET=listed, POST=add, PUT=change),
    "user/search": route(GET=search),
    "user/self": route(GET=own),
    "user/available_models": route(GET=available_models),
    "user/manage": route(POST=manage),
    "user/<int:pk>": route(GET=read, DELETE=delete),
    "topup": route(POST=top_up),
    "group/": route(GET=groups),
}
