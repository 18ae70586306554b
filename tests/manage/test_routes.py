"""Every route asks for its scope and for the rights of the key's owner, each time: read from the URLs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.cache import cache
from django.db import transaction

from accounts.models import User
from accounts.models.staff_key import SCOPES
from relay.manage.urls import ONE_API as ONE_API_ROUTES
from relay.manage.urls import api
from relay.tokens.lifecycle import create_token
from tests.manage.scripts import Script, give, make_key, world
from tests.support.portal import People

pytestmark = pytest.mark.shared
Route = tuple[str, str]  # method and path

# What each resource is called by the rights of its page.
NAMES = {
    "channels": "relay.{}_channel",
    "keys": "relay.{}_apikey",
    "channel-models": "relay.{}_channelmodel",
    "models": "relay.{}_model",
    "permissions": "relay.{}_modelpermission",
    "prices": "relay.{}_modelprice",
    "users": "accounts.{}_user",
    "groups": "auth.{}_group",
    "tokens": "relay.{}_token",
    "budgets": "relay.{}_budget",
    "redemption-batches": "relay.{}_redemptionbatch",
    "cooldowns": "relay.{}_cooldown",
}
AREAS = {
    "channels": "channels",
    "keys": "channels",
    "channel-models": "channels",
    "models": "models",
    "permissions": "models",
    "prices": "prices",
    "users": "users",
    "groups": "users",
    "tokens": "tokens",
    "budgets": "money",
    "redemption-batches": "money",
    "cooldowns": "routing",
}
NEW: dict[str, dict[str, Any]] = {
    "channels": {"name": "second"},
    "keys": {"channel": "channels", "secret": "sk-another-secret-0123456789"},
    "channel-models": {"channel": "channels", "model": "other"},
    "models": {"name": "m-3"},
    "permissions": {"model": "models", "user": "users"},
    "prices": {"model": "models", "input": "1", "output": "2"},
    "users": {"username": "uwe"},
    "groups": {"name": "Guild 2"},
    "tokens": {"user": "users", "name": "his"},
    "budgets": {"user": "users", "period": "month", "limit": "5"},
    "redemption-batches": {"name": "summer", "count": 1, "usd": "2"},
}
CHANGED: dict[str, dict[str, Any]] = {
    "channels": {"priority": 3},
    "keys": {"label": "main"},
    "channel-models": {"upstream_name": "vendor/m"},
    "models": {"is_open": True},
    "permissions": {"expires_at": "2031-01-01T00:00:00Z"},
    "prices": {"input": "3"},
    "users": {"notes": "a friend"},
    "groups": {"name": "Guild 3"},
    "tokens": {"name": "hers, too"},
    "budgets": {"limit": "6"},
    "redemption-batches": {"name": "autumn"},
}
# Routes that are no resource's list, row, addition, change or deletion: scope, rights, body.
OTHERS: dict[Route, tuple[str, str, Any]] = {
    ("POST", "/users/{pk}/top-up"): (
        "money:write",
        "accounts.view_user relay.add_ledgerentry",
        {"usd": 1, "reason": "r"},
    ),
    ("POST", "/users/{pk}/deduct"): (
        "money:write",
        "accounts.view_user relay.add_ledgerentry",
        {"usd": "1", "reason": "r"},
    ),
    ("POST", "/users/{pk}/unlimited"): (
        "money:write",
        "accounts.view_user relay.add_ledgerentry",
        {"unlimited": True},
    ),
    ("GET", "/movements?user={users}"): ("money:read", "relay.view_ledgerentry", None),
    ("GET", "/redemption-codes?batch={redemption-batches}"): ("money:read", "relay.view_redemptionbatch", None),
    ("POST", "/redemption-codes/{pk}/disable"): (
        "money:write",
        "relay.view_redemptionbatch relay.change_redemptionbatch",
        None,
    ),
    ("POST", "/redemption-batches/{pk}/show"): (
        "money:write",
        "relay.view_redemptionbatch relay.add_redemptionbatch",
        None,
    ),
    ("POST", "/redemption-batches/{pk}/disable"): (
        "money:write",
        "relay.view_redemptionbatch relay.change_redemptionbatch",
        None,
    ),
    ("POST", "/tokens/{pk}/rotate"): ("tokens:write", "relay.view_token relay.change_token", None),
    ("POST", "/tokens/{pk}/revoke"): ("tokens:write", "relay.view_token relay.change_token", None),
    ("POST", "/channels/{pk}/test"): ("channels:write", "relay.view_channel relay.change_channel", None),
    ("POST", "/keys/{pk}/put-back"): (
        "channels:write",
        "relay.view_apikey relay.view_channel relay.change_channel",
        None,
    ),
    ("DELETE", "/cooldowns?channel={channels}"): (
        "routing:write",
        "relay.view_cooldown relay.change_channel",
        None,
    ),
    ("DELETE", "/cooldowns/{pk}"): ("routing:write", "relay.view_cooldown relay.change_channel", None),
    ("GET", "/usage"): ("usage:read", "relay.view_usagerecord", None),
    ("GET", "/usage/sums"): ("usage:read", "relay.view_usagerecord relay.view_earnings", None),
    ("GET", "/receipts/req_x"): ("usage:read", "relay.view_usagerecord", None),
    ("POST", "/explain"): (
        "routing:read",
        "relay.view_channel accounts.view_user",
        {"user": "ulla", "model": "m-1"},
    ),
}
MISSING = {("GET", "/receipts/req_x")}  # there is none: let in, and told so
# Of one-api's form: method and path, scope, rights, body.
ONE_API: dict[Route, tuple[str, str, Any]] = {
    ("GET", "/user/"): ("users:read", "accounts.view_user", None),
    ("POST", "/user/"): (
        "users:write",
        "accounts.view_user accounts.add_user accounts.change_user",
        {"username": "uwe", "password": "correct horse battery"},
    ),
    ("PUT", "/user/"): (
        "users:write",
        "accounts.view_user accounts.change_user",
        {"id": "users", "username": "ulli"},
    ),
    ("GET", "/user/search"): ("users:read", "accounts.view_user", None),
    ("GET", "/user/self"): ("users:read", "accounts.view_user", None),
    ("GET", "/user/available_models"): ("models:read", "", None),
    ("POST", "/user/manage"): (
        "users:write",
        "accounts.view_user accounts.change_user",
        {"username": "ulla", "action": "disable"},
    ),
    ("GET", "/user/{users}"): ("users:read", "accounts.view_user", None),
    ("DELETE", "/user/{users}"): ("users:write", "accounts.view_user accounts.change_user", None),
    ("POST", "/topup"): (
        "money:write",
        "accounts.view_user relay.add_ledgerentry",
        {"user_id": "users", "quota": 500},
    ),
    ("GET", "/group/"): ("users:read", "auth.view_group", None),
    ("GET", "/token/"): ("tokens:read", "relay.view_token", None),
    ("POST", "/token/"): ("tokens:write", "relay.view_token relay.add_token", {"name": "t"}),
    ("PUT", "/token/"): (
        "tokens:write",
        "relay.view_token relay.change_token",
        {"id": "own-token", "name": "t2"},
    ),
    ("GET", "/token/search"): ("tokens:read", "relay.view_token", None),
    ("GET", "/token/{own-token}"): ("tokens:read", "relay.view_token", None),
    ("DELETE", "/token/{own-token}"): ("tokens:write", "relay.view_token relay.change_token", None),
    ("GET", "/channel/"): ("channels:read", "relay.view_channel", None),
    ("POST", "/channel/"): (
        "channels:write",
        "relay.add_channel",
        {"name": "x", "type": 1},
    ),
    ("PUT", "/channel/"): (
        "channels:write",
        "relay.view_channel relay.change_channel",
        {"id": "channels", "priority": 2},
    ),
    ("GET", "/channel/search"): ("channels:read", "relay.view_channel", None),
    ("GET", "/channel/models"): ("models:read", "relay.view_model", None),
    ("GET", "/channel/test/{channels}"): ("channels:write", "relay.view_channel relay.change_channel", None),
    ("GET", "/channel/{channels}"): ("channels:read", "relay.view_channel", None),
    ("DELETE", "/channel/{channels}"): ("channels:write", "relay.view_channel relay.delete_channel", None),
    ("GET", "/models"): ("models:read", "relay.view_channelmodel", None),
    ("GET", "/redemption/"): ("money:read", "relay.view_redemptionbatch", None),
    ("POST", "/redemption/"): (
        "money:write",
        "relay.view_redemptionbatch relay.add_redemptionbatch",
        {"name": "r", "count": 1, "quota": 500000},
    ),
    ("PUT", "/redemption/"): (
        "money:write",
        "relay.view_redemptionbatch relay.change_redemptionbatch",
        {"id": "redemption-codes", "status": 2},
    ),
    ("GET", "/redemption/search"): ("money:read", "relay.view_redemptionbatch", None),
    ("GET", "/redemption/{redemption-codes}"): ("money:read", "relay.view_redemptionbatch", None),
    ("DELETE", "/redemption/{redemption-codes}"): (
        "money:write",
        "relay.view_redemptionbatch relay.change_redemptionbatch",
        None,
    ),
    ("GET", "/log/"): ("usage:read", "relay.view_usagerecord", None),
    ("GET", "/log/stat"): ("usage:read", "relay.view_usagerecord relay.view_ledgeraccount", None),
    ("GET", "/log/self"): ("usage:read", "relay.view_usagerecord", None),
    ("GET", "/log/self/stat"): ("usage:read", "relay.view_usagerecord relay.view_ledgeraccount", None),
}
PUBLIC = {("GET", "/status")}


def expected() -> dict[Route, tuple[str, str, Any]]:
    """All routes of /api/v1: what they ask for, and a body."""
    found: dict[Route, tuple[str, str, Any]] = dict(OTHERS)
    for path, name in NAMES.items():
        area, view = AREAS[path], name.format("view")
        found["GET", f"/{path}"] = found["GET", f"/{path}/{{pk}}"] = (f"{area}:read", view, None)
        if path in NEW:
            more = " accounts.change_user" if path == "users" else ""
            found["POST", f"/{path}"] = (f"{area}:write", f"{name.format('add')}{more}", NEW[path])
            found["PATCH", f"/{path}/{{pk}}"] = (f"{area}:write", f"{view} {name.format('change')}", CHANGED[path])
        if path not in ("users", "tokens", "redemption-batches", "cooldowns"):
            more = " relay.delete_modelprice" if path == "models" else ""
            found["DELETE", f"/{path}/{{pk}}"] = (f"{area}:write", f"{view} {name.format('delete')}{more}", None)
    return found


def walked() -> Iterator[Route]:
    for bound in api._get_bound_routers():
        for path, view in bound.path_operations.items():
            for operation in view.operations:
                for method in operation.methods:
                    yield method, re.sub(r"\{int:pk\}", "{pk}", path)


def test_every_route_is_in_the_table() -> None:
    """A new route: say above what it asks for."""
    known = {(method, path.partition("?")[0].replace("req_x", "{request_id}")) for method, path in expected()}
    assert set(walked()) - {("GET", "/openapi.json")} == known
    views: dict[str, Any] = dict(ONE_API_ROUTES)
    one = {(method, f"/{path}") for path, view in views.items() for method in view.methods}
    named = {(method, re.sub(r"\{[a-z-]+\}", "<int:pk>", path)) for method, path in ONE_API}
    assert one == named | PUBLIC


def sent(body: Any, ids: dict[str, int]) -> Any:
    """A body with the numbers of the rows that it names."""
    if not isinstance(body, dict):
        return body
    return {name: ids.get(value, value) if isinstance(value, str) else value for name, value in body.items()}


def filled(path: str, ids: dict[str, int]) -> str:
    kind = path.split("/")[1].partition("?")[0]
    values = {**ids, "pk": ids.get(kind, 0)}
    return re.sub(r"\{([a-z-]+)\}", lambda found: str(values[found[1]]), path)


@dataclass
class Roles:
    """Gives one user rights by groups, each made once."""

    user: User
    made: dict[str, Group] = field(default_factory=dict)

    def _wear(self, name: str, rights: Callable[[], Any]) -> None:
        if name not in self.made:
            self.made[name] = Group.objects.create(name=name[:150])
            self.made[name].permissions.set(rights())
        self.user.groups.set([self.made[name]])

    def only(self, powers: str) -> None:
        """These rights and no others."""
        codes = [power.partition(".")[2] for power in powers.split()]
        self._wear(f"only {powers}", lambda: Permission.objects.filter(codename__in=codes))

    def all_but(self, power: str) -> None:
        """All rights but one, and but that to change what somebody must not see: who may change may see."""
        code = power.partition(".")[2]
        implied = {code, code.replace("view_", "change_")}
        self._wear(f"without {power}", lambda: Permission.objects.exclude(codename__in=implied))


class Undone(Exception):
    """Ends a transaction whose changes are not kept."""


def undone(ask: Callable[[], Any]) -> Any:
    """What is answered; nothing of what was done stays."""
    found = None
    try:
        with transaction.atomic():
            found = ask()
            raise Undone
    except Undone:
        return found


@pytest.fixture
def ids(people: People) -> dict[str, int]:
    cache.clear()
    return world(people.staff)


@pytest.mark.timeout(600)  # every power at every route
def test_scopes_and_rights_are_asked_at_every_route(
    people: People, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody; staff whose key has all other scopes; whose owner has all other rights; with both; and staff no more."""
    monkeypatch.setattr("relay.manage.resources.routes._look_up_prices", lambda *_: None)
    clerk = User.objects.create_user("clerk", is_staff=True)
    roles, wrong, clerk_rows = Roles(clerk), [], User.objects.filter(pk=clerk.pk)
    for (method, path), (scope, rights, body) in expected().items():
        where, what = filled(path, ids), sent(body, ids)

        def ask(*scopes: str, method: str = method, where: str = where, what: Any = what) -> tuple[int, str]:
            script = Script(make_key(clerk, *scopes))
            answer = undone(lambda: script(method, where, what))
            error = answer.json().get("error", {}) if answer.status_code >= 400 else {}
            return answer.status_code, error.get("code", "")

        others = [one for one in SCOPES if one not in (scope, scope.replace(":read", ":write"))]
        roles.only(rights)
        found = ask(*others)
        if found != (403, "missing_scope"):
            wrong.append(f"{method} {path}: a key without the scope {scope} gets {found}")
        found = ask(scope)
        if found[0] >= 400 and ((method, path) not in MISSING or found[0] != 404):
            wrong.append(f"{method} {path}: with scope and rights, the answer is {found}")
        for right in rights.split():
            code = right.partition(".")[2]
            roles.all_but(right)
            found = ask(scope)
            only_sees = code.startswith("view_") and f"{code.replace('view_', 'change_')}" in rights
            if found[0] != 403 and not only_sees:
                wrong.append(f"{method} {path}: without {right}, the answer is {found}")
        clerk_rows.update(is_staff=False)
        found = ask(scope)
        if found[0] != 401:
            wrong.append(f"{method} {path}: whoever is staff no more gets {found}")
        clerk_rows.update(is_staff=True)
        nobody = Script("")(method, where, what)
        if nobody.status_code != 401:
            wrong.append(f"{method} {path}: nobody gets {nobody.status_code}")
    assert "\n".join(wrong) == ""


@pytest.mark.timeout(600)
def test_the_same_of_routes_in_one_apis_form(
    people: People, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.manage.oneapi.channels._look_up_prices", lambda *_: None)
    clerk = User.objects.create_user("clerk", is_staff=True)
    ids["own-token"] = create_token(clerk, "own", actor=None)[0].pk
    roles, wrong, clerk_rows = Roles(clerk), [], User.objects.filter(pk=clerk.pk)
    for (method, path), (scope, rights, body) in ONE_API.items():
        where, what = filled(path, ids), sent(body, ids)

        def ask(secret: str, method: str = method, where: str = where, what: Any = what) -> dict[str, Any]:
            script = Script(secret, "/api")
            answer = undone(lambda: script(method, where, what))
            found: dict[str, Any] = answer.json()
            return {"success": "data" in found} if where == "/channel/models" else found

        others = [one for one in SCOPES if one not in (scope, scope.replace(":read", ":write"))]
        roles.only(rights)
        if ask(make_key(clerk, *others))["success"]:
            wrong.append(f"{method} {path}: a key without the scope {scope} is let in")
        found = ask(make_key(clerk, scope))
        if not found["success"] and "test" not in path:
            wrong.append(f"{method} {path}: with scope and rights, the answer is {found}")
        for right in rights.split():
            code = right.partition(".")[2]
            roles.all_but(right)
            only_sees = code.startswith("view_") and f"{code.replace('view_', 'change_')}" in rights
            if ask(make_key(clerk, scope))["success"] and not only_sees:
                wrong.append(f"{method} {path}: without {right}, it is let in")
        clerk_rows.update(is_staff=False)
        if ask(make_key(clerk, scope))["success"]:
            wrong.append(f"{method} {path}: whoever is staff no more is let in")
        clerk_rows.update(is_staff=True)
        if Script("", "/api")(method, where, what).status_code != 401:
            wrong.append(f"{method} {path}: nobody is let in")
    assert "\n".join(wrong) == ""


def test_what_one_key_may_not_see_is_left_out(people: People, ids: dict[str, int]) -> None:
    """Money and what upstreams cost, of rows that somebody may see otherwise."""
    clerk = give(
        User.objects.create_user("clerk", is_staff=True),
        "relay.view_channel relay.change_channel accounts.view_user relay.view_token relay.view_modelprice",
    )
    script = Script(make_key(clerk))
    assert "cost_multiplier" not in script.ok("GET", f"/channels/{ids['channels']}")
    assert script("PATCH", f"/channels/{ids['channels']}", {"cost_multiplier": "0.1"}).status_code == 422
    user = script.ok("GET", f"/users/{ids['users']}")
    assert not {"balance_usd", "held_usd", "used_usd"} & set(user)
    assert "used_usd" not in script.ok("GET", f"/tokens/{ids['tokens']}")
    prices = script.ok("GET", "/prices?purpose=cost")
    assert prices["data"] == []


def test_nobody_gains_rights_over_the_api(people: People, ids: dict[str, int]) -> None:
    """As on the pages: no roles without the right to give them, no token and no account of somebody with more."""
    clerk = give(
        User.objects.create_user("clerk", is_staff=True),
        "accounts.view_user accounts.change_user accounts.add_user relay.view_token relay.add_token relay.change_token",
    )
    script = Script(make_key(clerk))
    for name, value in (("is_superuser", True), ("is_staff", True)):
        assert script("PATCH", f"/users/{clerk.pk}", {name: value}).status_code == 422, name
    assert script("PATCH", f"/users/{people.staff.pk}", {"email": "x@example.org"}).status_code == 403
    assert script("POST", "/tokens", {"user": people.staff.pk, "name": "x"}).status_code == 422
    theirs = create_token(people.staff, "theirs", actor=None)[0]
    assert script("POST", f"/tokens/{theirs.pk}/rotate").status_code == 403
    assert not User.objects.get(pk=clerk.pk).is_superuser
