"""What is done over the API is what is done on the pages: the same checks, rows, audit log and announcements."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from accounts.models import AuditEvent, Change, User
from portal.lib import money
from portal.lib.money import NANO
from relay.billing.ledger import movements
from relay.models import ApiKey, Channel, ChannelEvent, LedgerAccount, Model, ModelPrice, Token
from relay.tokens.lifecycle import create_token
from tests.manage.scripts import SECRET, UPSTREAM, Script, make_key, world
from tests.support.pages.filled import filled
from tests.support.portal import People
from tests.support.sessions import NO_BUDGETS, signed_in

pytestmark = pytest.mark.shared
Entry = tuple[str, str, dict[str, Any]]
# Values that differ each time: of secrets, and of times that nobody has typed.
NUMBER = re.compile(r"#[0-9]+")  # of a key without a label: PostgreSQL gives no number twice
OF_ITS_OWN = ("hint", "digest", "sealed", "valid_from", "token", "password", "staff_key")


class Undone(Exception):
    """Ends a transaction whose changes are not kept."""


@pytest.fixture
def ids(people: People) -> dict[str, int]:
    return world(people.staff)


def without_own(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_own(one) for name, one in value.items() if name not in OF_ITS_OWN}
    if isinstance(value, list):
        return [without_own(one) for one in value]
    return NUMBER.sub("#", value) if isinstance(value, str) else value


def written(work: Callable[[], Any]) -> tuple[list[Entry], list[tuple[str, str]]]:
    """The audit entries and the announcements of something that is then undone."""
    events, changes = AuditEvent.objects.count(), Change.objects.count()
    found: tuple[list[Entry], list[tuple[str, str]]] = ([], [])
    try:
        with transaction.atomic():
            answer = work()
            assert answer.status_code in (200, 201, 302), answer.content[:3000]
            entries = AuditEvent.objects.order_by("pk")[events:]
            found = (
                [(one.action, one.actor_name, without_own(one.detail)) for one in entries],
                sorted(set(Change.objects.order_by("pk").values_list("topic", "key")[changes:])),
            )
            raise Undone
    except Undone:
        return found


def form_of(browser: Client, url: str, **changes: Any) -> dict[str, Any]:
    return filled(browser.get(url).content.decode(), **changes)


CHANGES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # name: page, fields of its form, body
    "channels": ("relay/channel", {"priority": "7", "notes": "new"}, {"priority": 7, "notes": "new"}),
    "keys": ("relay/apikey", {"label": "main", "secret": SECRET + "x"}, {"label": "main", "secret": SECRET + "x"}),
    "channel-models": ("relay/channelmodel", {"upstream_name": "vendor/m"}, {"upstream_name": "vendor/m"}),
    "models": (
        "relay/model",
        {"is_open": "on", "further_names": "m-one\nm-eins"},
        {"is_open": True, "further_names": ["m-one", "m-eins"]},
    ),
    "permissions": (
        "relay/modelpermission",
        {"expires_at_0": "2031-01-02", "expires_at_1": "03:04:05"},
        {"expires_at": "2031-01-02T03:04:05Z"},
    ),
    "prices": ("relay/modelprice", {"output": "3.5"}, {"output": "3.5"}),
    "users": ("accounts/user", {"notes": "a friend", "max_rpm": "9"}, {"notes": "a friend", "max_rpm": 9}),
    "groups": ("auth/group", {"name": "Guild 3"}, {"name": "Guild 3"}),
    "tokens": ("relay/token", {"name": "other", "quota": "5"}, {"name": "other", "quota_usd": "5"}),
    "budgets": ("relay/budget", {"limit": "9"}, {"limit": "9"}),
    "redemption-batches": ("relay/redemptionbatch", {"name": "autumn"}, {"name": "autumn"}),
}


@pytest.mark.parametrize("path", CHANGES)
def test_a_change_leaves_the_same_traces(people: People, ids: dict[str, int], path: str) -> None:
    page, fields, body = CHANGES[path]
    browser, script = signed_in(people.staff), Script(make_key(people.staff))
    url = f"/admin/{page}/{ids[path]}/change/"
    form = form_of(browser, url, **fields)
    on_page = written(lambda: browser.post(url, form))
    over_api = written(lambda: script("PATCH", f"/{path}/{ids[path]}", body))
    assert on_page == over_api and on_page[0]


ADDITIONS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "channels": (
        "relay/channel",
        {"name": "second", "base_url": UPSTREAM, "new_keys": SECRET, "new_models": "m-1 = vendor/m-1"},
        {"name": "second", "base_url": UPSTREAM, "add_keys": [SECRET], "add_models": ["m-1 = vendor/m-1"]},
    ),
    "models": ("relay/model", {"name": "m-9", "abilities": ["chat"]}, {"name": "m-9", "abilities": ["chat"]}),
    "groups": (
        "auth/group",
        {"name": "Guild 2", "settings-0-price_multiplier": "0.5", "settings-0-member_rpm": "7"},
        {"name": "Guild 2", "price_multiplier": "0.5", "member_rpm": 7},
    ),
    "budgets": ("relay/budget", {"user": "users", "period": "month", "limit": "4"}, {}),
    "prices": ("relay/modelprice", {"model": "models", "input": "2", "output": "4"}, {}),
    "tokens": ("relay/token", {"user": "users", "name": "his", **NO_BUDGETS}, {"user": "users", "name": "his"}),
    "redemption-batches": ("relay/redemptionbatch", {"name": "summer", "usd": "2", "count": "3"}, {}),
}


@pytest.mark.parametrize("path", ADDITIONS)
def test_an_addition_leaves_the_same_traces(
    people: People, ids: dict[str, int], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, fields, body = ADDITIONS[path]
    browser, script = signed_in(people.staff), Script(make_key(people.staff))
    named = {name: ids.get(value, value) if isinstance(value, str) else value for name, value in fields.items()}
    sent = {name: ids.get(value, value) if isinstance(value, str) else value for name, value in body.items()}
    url = f"/admin/{page}/add/"
    form = form_of(browser, url, **{name: str(one) if isinstance(one, int) else one for name, one in named.items()})
    on_page = written(lambda: browser.post(url, form))
    sent = sent or {**named, **({"count": 3} if "count" in named else {})}
    over_api = written(lambda: script("POST", f"/{path}", sent))
    assert on_page[0] == over_api[0] and on_page[0]
    assert {topic for topic, _ in on_page[1]} == {topic for topic, _ in over_api[1]}


def test_deleting_and_moving_money_leave_the_same_traces(people: People, ids: dict[str, int]) -> None:
    browser, script = signed_in(people.staff), Script(make_key(people.staff))
    pages = {"channels": "relay/channel", "groups": "auth/group", "permissions": "relay/modelpermission"}
    for path, page in pages.items():
        on_page = written(partial(browser.post, f"/admin/{page}/{ids[path]}/delete/", {"post": "yes"}))
        over_api = written(partial(script, "DELETE", f"/{path}/{ids[path]}"))
        assert on_page == over_api and on_page[0], path
    user = ids["users"]
    for action, amount in (("top-up", "2.5"), ("deduct", "1.000000001")):
        form = {"amount": amount, "reason": "paid"}
        on_page = written(partial(browser.post, f"/admin/accounts/user/{user}/{action}/", form))
        body = {"usd": amount, "reason": "paid"}
        over_api = written(partial(script, "POST", f"/users/{user}/{action}", body))
        assert on_page == over_api and on_page[0], action
    on_page = written(partial(browser.post, f"/admin/accounts/user/{user}/unlimited/", {"wanted": "unlimited"}))
    assert on_page == written(partial(script, "POST", f"/users/{user}/unlimited", {"unlimited": True}))
    token = ids["tokens"]
    for action in ("rotate", "revoke"):
        on_page = written(partial(browser.post, f"/admin/relay/token/{token}/{action}/"))
        over_api = written(partial(script, "POST", f"/tokens/{token}/{action}"))
        assert on_page[0] == over_api[0] and on_page[0], action
    batch = ids["redemption-batches"]
    on_page = written(partial(browser.post, f"/admin/relay/redemptionbatch/{batch}/disable/"))
    assert on_page == written(partial(script, "POST", f"/redemption-batches/{batch}/disable"))


def test_what_was_not_sent_stays(people: People, ids: dict[str, int]) -> None:
    """Also what a page's form shows otherwise than it is stored: lists as lines, quotas, rights of roles."""
    script, user = Script(make_key(people.staff)), User.objects.get(pk=ids["users"])
    token = script.ok(
        "POST",
        "/tokens",
        {
            "user": user.pk,
            "name": "all",
            "quota_usd": "5.000001",
            "allowed_ips": ["10.0.0.0/8", "192.0.2.1"],
            "models_allowed": [ids["models"]],
            "models_limited": True,
            "expires_at": "2031-01-02T03:04:05Z",
            "max_rpm": 5,
        },
    )
    before = AuditEvent.objects.count()
    changed = script.ok("PATCH", f"/tokens/{token['id']}", {"name": "renamed"})
    same = {name: value for name, value in token.items() if name not in ("name", "key", "warnings")}
    assert {**same, "name": "renamed"} == {name: one for name, one in changed.items() if name != "warnings"}
    assert [one.action for one in AuditEvent.objects.order_by("pk")[before:]] == ["token.change"]
    operators = script.ok("GET", "/groups?name=Operator")["data"][0]["id"]
    before = AuditEvent.objects.count()
    script.ok("PATCH", f"/groups/{operators}", {"max_rpm": 100})
    entry = AuditEvent.objects.order_by("pk")[before]
    assert "permissions" not in entry.detail.get("changes", {}) and entry.detail["rows"]
    channel = script.ok("POST", "/channels", {"name": "over", "overrides": [{"do": "remove", "path": "user"}]})
    again = script.ok("PATCH", f"/channels/{channel['id']}", {"weight": 2})
    assert again["overrides"] == [{"do": "remove", "path": "user"}] and again["weight"] == 2


def test_wrong_values_name_their_field_and_what_to_do(people: People, ids: dict[str, int]) -> None:
    script = Script(make_key(people.staff))
    for method, path, body, field in (
        ("POST", "/channels", {"name": "first"}, "name"),
        ("POST", "/channels", {"name": "x", "provider": "nobody"}, "provider"),
        ("POST", "/channels", {"name": "x", "base_url": "http://169.254.169.254/v1"}, "base_url"),
        ("POST", "/channels", {"name": "x", "base_url": "file:///etc/passwd"}, "base_url"),
        ("POST", "/channels", {"name": "x", "proxy_url": "http://10.1.2.3:80"}, "proxy_url"),
        ("POST", "/channels", {"name": "x", "weight": 0}, "weight"),
        ("POST", "/channels", {"name": "x", "groups": [10**9]}, "groups"),
        ("POST", "/channels", {"name": "x", "groups": [True]}, "groups.0"),
        ("POST", "/channels", {"name": "x", "overrides": [{"do": "nothing"}]}, "overrides"),
        ("POST", "/channels", {"name": "x", "add_keys": ["two words"]}, "add_keys"),
        ("POST", "/channels", {"name": "x", "test_every": 10**12}, "test_every"),
        ("POST", "/keys", {"channel": ids["channels"], "secret": SECRET}, "secret"),
        ("POST", "/keys", {"channel": 10**9, "secret": "sk-another-secret-0123"}, "channel"),
        ("POST", "/prices", {"model": ids["models"], "input": "-1", "output": "1"}, "input"),
        ("POST", "/prices", {"model": ids["models"], "input": "1e30", "output": "1"}, "input"),
        ("POST", "/tokens", {"user": ids["users"], "name": "x", "expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
        ("POST", "/tokens", {"user": ids["users"], "name": "x", "allowed_ips": ["nowhere"]}, "allowed_ips"),
        ("POST", "/tokens", {"user": ids["users"], "name": "x", "quota_usd": "-1"}, "quota_usd"),
        ("POST", "/users", {"username": "ulla"}, "username"),
        ("POST", "/users", {"username": "uwe", "password": "short"}, "password"),
        ("POST", "/users", {"username": "uwe", "email": "ulla@example.org"}, "email"),
        ("POST", f"/users/{ids['users']}/top-up", {"usd": "0", "reason": "r"}, "usd"),
        ("POST", f"/users/{ids['users']}/top-up", {"usd": 1e300, "reason": "r"}, "usd"),
        ("POST", f"/users/{ids['users']}/top-up", {"usd": "1", "reason": " "}, "reason"),
        ("POST", f"/users/{ids['users']}/deduct", {"usd": "6", "reason": "r"}, "usd"),
        ("POST", "/redemption-batches", {"name": "b", "count": 10**6, "usd": "1"}, "count"),
        ("PATCH", f"/keys/{ids['keys']}", {"channel": ids["channels"]}, "channel"),
        ("PATCH", f"/tokens/{ids['tokens']}", {"user": ids["users"]}, "user"),
    ):
        answer = script(method, path, body)
        error = answer.json().get("error", {})
        assert answer.status_code == 422 and field in error["fields"] and error["message"], (path, body, error)
        assert SECRET not in answer.content.decode()
    assert not ModelPrice.objects.filter(model=ids["models"], input__lt=0).exists()


def test_a_member_with_a_slip_is_named_before_what_is_missing_then(people: People, ids: dict[str, int]) -> None:
    script = Script(make_key(people.staff))
    answer = script("POST", f"/users/{ids['users']}/top-up", {"amount": "5"})
    error = answer.json()["error"]
    assert answer.status_code == 422 and error["message"] == "amount: There is no such member."
    assert error["fields"]["usd"] == error["fields"]["reason"] == ["Field required"]


def test_a_user_is_explained_by_name_and_by_id(people: People, ids: dict[str, int]) -> None:
    script = Script(make_key(people.staff))
    by_name = script.ok("POST", "/explain", {"user": "ulla", "model": "m-1"})
    user = User.objects.get(username="ulla")
    assert script.ok("POST", "/explain", {"user": user.pk, "model": "m-1"}) == by_name
    assert script("POST", "/explain", {"user": 10**9, "model": "m-1"}).status_code == 404
    for wrong in (True, 1.5, "", 0, None):
        answer = script("POST", "/explain", {"user": wrong, "model": "m-1"})
        assert answer.status_code == 422 and list(answer.json()["error"]["fields"]) == ["user"], wrong


def test_the_root_says_where_the_routes_are(people: People) -> None:
    for path in ("", "/"):
        answer = Script(make_key(people.staff))("GET", path)
        assert answer.status_code == 404 and "openapi.json" in answer.json()["error"]["message"]


def test_superusers_allow_an_address_with_a_channel(people: People, settings: Any) -> None:
    script = Script(make_key(people.staff))
    refused = script("POST", "/channels", {"name": "lan", "base_url": "http://10.1.2.3:8000/v1"})
    said = refused.json()["error"]["message"]
    assert refused.status_code == 422 and "<" not in said and "“10.1.2.3:8000”" in said
    body = {"name": "lan", "base_url": "http://10.1.2.3:8000/v1", "allow_address": "10.1.2.3:8000"}
    made = script("POST", "/channels", body)
    assert made.status_code == 201, made.content
    assert AuditEvent.objects.filter(action="allowedupstream.add").count() == 1


def test_no_answer_shows_a_secret_but_once(people: People, ids: dict[str, int]) -> None:
    script = Script(make_key(people.staff))
    made = script.ok("POST", "/tokens", {"user": ids["users"], "name": "t"})
    assert Token.objects.get(pk=made["id"]).hint == made["hint"] and made["key"].startswith("sk-")
    rotated = script.ok("POST", f"/tokens/{made['id']}/rotate")
    assert rotated["key"] != made["key"]
    shown = script.ok("POST", f"/redemption-batches/{ids['redemption-batches']}/show")["data"]
    secrets = [SECRET, made["key"], rotated["key"], script.secret, *(one["code"] for one in shown)]
    texts = []
    for path in ids:
        if path not in ("other", "redemption-codes"):
            texts += [script("GET", f"/{path}").content, script("GET", f"/{path}/{ids[path]}").content]
    texts.append(script("GET", f"/redemption-codes?batch={ids['redemption-batches']}").content)
    texts.append(script("POST", "/explain", {"user": "ulla", "model": "m-1"}).content)
    for name in ("user/", "token/", "channel/", "redemption/", "log/"):
        texts.append(Script(script.secret, "/api")("GET", f"/{name}").content)
    everything = b"".join(texts).decode()
    assert not [secret for secret in secrets if secret in everything]
    stored = "".join(str(one.detail) for one in AuditEvent.objects.all())
    assert not [secret for secret in secrets if secret in stored]


def test_what_pages_tell_their_reader_is_in_the_answer(people: People, ids: dict[str, int]) -> None:
    script = Script(make_key(people.staff))
    made = script.ok("POST", "/channels", {"name": "closed", "groups_limited": True})
    assert any("closed" in one for one in made["warnings"])
    assert ChannelEvent.objects.filter(channel=made["id"], what="created").exists()
    held = script.ok("PATCH", f"/channels/{ids['channels']}", {"base_url": "https://other.example.org/v1"})
    assert any("given for another address" in one for one in held["warnings"])
    assert ApiKey.objects.get(pk=ids["keys"]).given_for != Channel.objects.get(pk=ids["channels"]).key_destination()
    assert script.ok("GET", f"/keys/{ids['keys']}")["state"] == "given_for_another_address"


def test_a_price_in_force_stays_and_a_model_in_use_is_kept(people: People, ids: dict[str, int]) -> None:
    script = Script(make_key(people.staff))
    price = script.ok("POST", "/prices", {"model": ids["models"], "input": "1", "output": "2"})
    for method in ("PATCH", "DELETE"):
        answer = script(method, f"/prices/{price['id']}", {"input": "9"} if method == "PATCH" else None)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "in_force")
    assert ModelPrice.objects.get(pk=price["id"]).input == 1


def test_a_change_of_what_somebody_else_has_changed_is_refused(people: People, ids: dict[str, int]) -> None:
    script, where = Script(make_key(people.staff)), f"/models/{ids['models']}"
    seen = script("GET", where)["ETag"]
    script.ok("PATCH", where, {"description": "first"}, If_Match=seen)
    late = script("PATCH", where, {"description": "second"}, If_Match=seen)
    assert (late.status_code, late.json()["error"]["code"]) == (412, "changed_meanwhile")
    assert script("DELETE", where, If_Match=seen).status_code == 412
    assert Model.objects.get(pk=ids["models"]).description == "first"
    # Requests in between change balances, which is no reason.
    user = f"/users/{ids['users']}"
    seen = script("GET", user)["ETag"]
    LedgerAccount.objects.filter(user=ids["users"], kind="wallet").update(reserved=5)
    script.ok("PATCH", user, {"notes": "n"}, If_Match=seen)


def test_tokens_of_others_are_not_ones_own_in_one_apis_form(people: People, ids: dict[str, int]) -> None:
    script = Script(make_key(people.staff), "/api")
    create_token(people.other, "not mine", actor=None)
    assert script.ok("GET", "/token/")["data"] == []
    for method, path in (("GET", f"/token/{ids['tokens']}"), ("DELETE", f"/token/{ids['tokens']}")):
        assert script(method, path).json()["success"] is False
    assert script("PUT", "/token/", {"id": ids["tokens"], "name": "x"}).json()["success"] is False


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_page_that_is_saved_as_it_is_writes_nothing(people: People, ids: dict[str, int], name: str) -> None:
    page = CHANGES[name][0]
    token = Token.objects.get(pk=ids["tokens"])
    movements.set_quota(token, 20 * NANO + 1)
    url = f"/admin/{page}/{ids[name]}/change/"
    browser = signed_in(people.staff)
    before = AuditEvent.objects.count()
    answer = browser.post(url, form_of(browser, url))
    assert answer.status_code == 302, answer.context["errors"]
    assert [(one.action, one.detail) for one in AuditEvent.objects.order_by("pk")[before:]] == []
    assert LedgerAccount.objects.get(token=token, kind="quota").granted == 20 * NANO + 1


@pytest.mark.parametrize("granted", [1, 12_345_678_901, money.MOST_USD * NANO + 1, money.LARGEST])
def test_a_quota_that_was_imported_can_be_saved_with_its_token(
    people: People, ids: dict[str, int], granted: int
) -> None:
    token = Token.objects.get(pk=ids["tokens"])
    movements.set_quota(token, granted)
    browser, url = signed_in(people.staff), f"/admin/relay/token/{token.pk}/change/"
    answer = browser.post(url, form_of(browser, url, notes="seen"))
    assert answer.status_code == 302, answer.context["errors"]
    Script(make_key(people.staff)).ok("PATCH", f"/tokens/{token.pk}", {"notes": "seen again"})
    token.refresh_from_db()
    assert token.notes == "seen again"
    assert LedgerAccount.objects.get(token=token, kind="quota").granted == granted
