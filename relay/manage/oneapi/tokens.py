"""one-api's `/api/token/`: the tokens of the one whose key it is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from django.http import HttpRequest
from django.utils.translation import gettext as _

from relay.manage import actions
from relay.manage.oneapi.answers import (
    body_of,
    changed,
    integer,
    page,
    quota_of,
    reads,
    route,
    searched,
    seconds,
    text,
    usd_of,
    writes,
)
from relay.manage.requests.problems import Missing, Problem
from relay.manage.resources import rows
from relay.manage.resources.pages import Page
from relay.manage.resources.resources import BY_PATH
from relay.models import Model

TOKENS: Final = BY_PATH["tokens"]
_STATUS: Final = {"active": 1, "disabled": 2, "revoked": 2, "expired": 3, "used_up": 4}
_QUOTA: Final = frozenset(("remain_quota", "unlimited_quota"))
_LAST: Final = 32_503_680_000  # seconds since 1970: the year 3000


def _own(request: HttpRequest) -> tuple[Page, Any]:
    """The page of tokens, and the key owner's that are not revoked: to one-api those are deleted."""
    made = rows.page_of(request, TOKENS)
    return made, rows.rows_of(TOKENS, made).filter(user=request.user.pk, revoked_at=None)


def _one(request: HttpRequest, pk: int) -> tuple[Page, Any]:
    made, found = _own(request)
    row = found.filter(pk=pk).first()
    if row is None:
        raise Missing(_("There is no such token of yours."))
    return made, row


def as_token(row: Any, names: dict[int, str], secret: str = "") -> dict[str, Any]:
    """A token in one-api's form. Its key is whole only when it was just made; one-api leaves out the `sk-` of keys."""
    left = (row.quota_granted or 0) - (row.quota_used or 0) if row.quota_limited else None
    allowed = sorted(names[model.pk] for model in row.models_allowed.all() if model.pk in names)
    hint = row.hint.removeprefix("sk-").replace("…", "*" * 10)
    return {
        "id": row.pk,
        "user_id": row.user_id,
        "key": secret.removeprefix("sk-") or hint,
        "status": _STATUS[row.state(left=left)],
        "name": row.name,
        "created_time": seconds(row.created_at),
        "accessed_time": seconds(row.used_at or row.created_at),
        "expired_time": seconds(row.expires_at) if row.expires_at is not None else -1,
        "remain_quota": quota_of(left) if left is not None else 0,
        "unlimited_quota": left is None,
        "used_quota": quota_of(row.quota_used or 0),
        "models": ",".join(allowed) if row.models_limited else "",
        "subnet": ",".join(row.allowed_ips),
    }


def _shown(found: list[Any], secret: str = "") -> list[dict[str, Any]]:
    names = {model.pk: model.name for row in found for model in row.models_allowed.all()}
    return [as_token(row, names, secret) for row in found]


def _values(sent: dict[str, Any], used: int) -> dict[str, Any]:
    """The values of a body. `used`: units of quota that the token has used: one-api counts what remains."""
    values: dict[str, Any] = {}
    if "name" in sent:
        values["name"] = text(sent["name"], "name")
    if "expired_time" in sent:
        ends = integer(sent["expired_time"], "expired_time", -1)
        if ends > _LAST:
            raise Problem(_("“%(name)s” is seconds since 1970, or -1 for never.") % {"name": "expired_time"})
        values["expires_at"] = datetime.fromtimestamp(ends, UTC) if ends > 0 else None
    if "remain_quota" in sent or "unlimited_quota" in sent:
        remain = integer(sent.get("remain_quota"), "remain_quota", 0)
        values["quota_usd"] = None if sent.get("unlimited_quota") is True else usd_of(used + remain)
    if "models" in sent:
        wanted = [one.strip() for one in text(sent["models"], "models").split(",") if one.strip()]
        found = dict(Model.objects.filter(name__in=wanted[:1000]).values_list("name", "pk"))
        for name in wanted:
            if name not in found:
                raise Missing(_("There is no model “%(model)s”.") % {"model": name[:120]})
        values |= {"models_allowed": list(found.values()), "models_limited": bool(wanted)}
    if "subnet" in sent:
        values["allowed_ips"] = [one for one in text(sent["subnet"], "subnet").split(",") if one.strip()]
    return values


@reads("tokens")
def listed(request: HttpRequest) -> Any:
    return _shown(page(request, _own(request)[1]))


@reads("tokens")
def search(request: HttpRequest) -> Any:
    return _shown(searched(request, *_own(request)))


@reads("tokens")
def read(request: HttpRequest, pk: int) -> Any:
    return _shown([_one(request, pk)[1]])[0]


@writes("tokens")
def add(request: HttpRequest) -> Any:
    made, sent = rows.page_of(request, TOKENS), body_of(request)
    values = {"remain_quota": 0, **{name: value for name, value in sent.items() if value is not None}}
    row = made.add(TOKENS.values({"user": request.user.pk, **_values(values, 0)}, True))
    secret = request.new_token_secret  # type: ignore[attr-defined]  # of the page
    return _shown([_one(request, row.pk)[1]], secret)[0]


@writes("tokens")
def change(request: HttpRequest) -> Any:
    sent = body_of(request)
    pk = integer(sent.get("id"), "id", 0)
    made, row = _one(request, pk)
    values: dict[str, Any] = {}
    if not request.GET.get("status_only"):
        named = {name: value for name, value in sent.items() if value is not None}
        new = changed(named, _shown([row])[0])
        if _QUOTA & new.keys():  # one says what the other means
            new |= {name: named[name] for name in _QUOTA & named.keys()}
        values = _values(new, quota_of(row.quota_used or 0))
    if request.GET.get("status_only") and "status" in sent:
        values["enabled"] = integer(sent["status"], "status", 1) == 1
    made.change(made.find(pk, lock=True), TOKENS.values(values, False))
    return _shown([_one(request, pk)[1]])[0]


@writes("tokens")
def delete(request: HttpRequest, pk: int) -> Any:
    """Revoke a token: its usage stays."""
    _one(request, pk)
    actions.revoke_token(request, pk)


ROUTES: Final = {
    "token/": route(GET=listed, POST=add, PUT=change),
    "token/search": route(GET=search),
    "token/<int:pk>": route(GET=read, DELETE=delete),
}
