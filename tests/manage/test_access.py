"""Who may use the management API: keys of staff, as long as their owners are staff."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.core.cache import cache
from django.test import Client

from accounts.models import AuditEvent, StaffKey, User
from accounts.models.staff_key import PREFIX
from portal.lib import clock
from relay.tokens.lifecycle import create_token
from tests.manage.scripts import Script, make_key
from tests.support.portal import People, Portal
from tests.support.server import Server
from tests.support.sessions import signed_in, with_config

pytestmark = pytest.mark.shared
REFUSED = ("invalid_key", "missing_key", "key_ended")


@pytest.fixture
def boss(people: People) -> User:
    cache.clear()
    owner: User = people.staff
    return owner


def refused(answer: Any) -> str:
    assert answer.status_code == 401 and answer["WWW-Authenticate"] == "Bearer", answer.content
    code: str = answer.json()["error"]["code"]
    assert code in REFUSED
    return code


def test_a_key_is_needed_whatever_else_is_sent(boss: User, people: People) -> None:
    token = create_token(people.owner, "t", actor=None)[1]
    assert refused(Script("")("GET", "/channels")) == "missing_key"
    for wrong in (token, "sk-staff-nobody", "x" * 5000, "é", make_key(boss)[:-1]):
        assert refused(Script(wrong)("GET", "/channels")) == "invalid_key"
    browser = signed_in(boss)
    assert refused(browser.get("/api/v1/channels")) == "missing_key"
    assert refused(browser.post("/api/v1/channels", {"name": "x"})) == "missing_key"


def test_a_key_needs_no_csrf_token_and_makes_no_session(boss: User) -> None:
    answer = Script(make_key(boss))("POST", "/groups", {"name": "Guild"})
    assert answer.status_code == 201 and not answer.cookies


def test_somebody_elses_session_beside_a_key_is_nobody(boss: User, people: People) -> None:
    browser = signed_in(people.owner)
    found = browser.get("/api/user/self", headers={"Authorization": make_key(boss)})
    assert found.json()["data"]["username"] == boss.username


@pytest.mark.parametrize("end", ["expired", "revoked", "disabled", "no staff", "second factor", "deleted"])
def test_a_key_ends_at_once(boss: User, settings: Any, end: str) -> None:
    script = Script(make_key(boss))
    script.ok("GET", "/channels")
    if end == "expired":
        StaffKey.objects.update(expires_at=clock.now() - timedelta(seconds=1))
    elif end == "revoked":
        StaffKey.objects.update(revoked_at=clock.now())
    elif end == "disabled":
        User.objects.filter(pk=boss.pk).update(is_active=False)
    elif end == "no staff":
        User.objects.filter(pk=boss.pk).update(is_staff=False)
    elif end == "second factor":
        with_config(settings, staff_mfa=True)
    else:
        StaffKey.objects.all().delete()
    assert refused(script("GET", "/channels")) == ("invalid_key" if end == "deleted" else "key_ended")


def test_a_key_is_for_its_scopes_alone_and_an_empty_list_is_for_nothing(boss: User) -> None:
    script = Script(make_key(boss, "channels:read"))
    script.ok("GET", "/channels")
    for method, path, body in (
        ("POST", "/channels", {"name": "x"}),
        ("GET", "/models", None),
        ("GET", "/users", None),
        ("GET", "/usage", None),
    ):
        answer = script(method, path, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "missing_scope"), path
    Script(make_key(boss, "groups:write", "users:write")).ok("GET", "/users")
    StaffKey.objects.update(scopes=[])
    assert script("GET", "/channels").status_code == 403


def test_wrong_keys_of_an_address_are_limited_and_right_ones_are_let_in(boss: User) -> None:
    right, wrong = Script(make_key(boss)), Script(PREFIX + "wrong")
    found = [wrong("GET", "/channels").status_code for _ in range(40)]
    assert found[:30] == [401] * 30 and set(found[31:]) == {429}
    right.ok("GET", "/channels")
    assert wrong("GET", "/channels").json()["error"]["code"] == "too_many_wrong_keys"
    assert AuditEvent.objects.filter(action="staff-key.limited").count() == 1


def test_the_use_of_a_key_is_noted_once_a_minute(boss: User, django_assert_num_queries: Any) -> None:
    script = Script(make_key(boss))
    script.ok("GET", "/channels")
    key = StaffKey.objects.get()
    assert key.last_used_at is not None and key.last_ip == "127.0.0.1"
    with django_assert_num_queries(2):  # the key with its owner, and the rows, of which there are none
        script.ok("GET", "/channels")


def test_looking_as_a_user_changes_nothing_here(boss: User, people: People) -> None:
    browser = signed_in(boss)
    browser.post(f"/accounts/view-as/{people.other.pk}/")
    answer = browser.post(
        "/api/v1/groups", '{"name": "Guild"}', "application/json", headers={"Authorization": f"Bearer {make_key(boss)}"}
    )
    assert answer.status_code == 201


def test_staff_keys_are_no_tokens_and_tokens_no_staff_keys(server: Server, live: Portal, clean_addresses: Any) -> None:
    boss = live.user(is_staff=True, is_superuser=True)
    secret, token = make_key(boss), live.token()
    server.catch_up()
    with httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client:

        def status(path: str, key: str, **more: Any) -> int:
            return client.get(path, headers={"authorization": f"Bearer {key}"}, **more).status_code

        assert [status("/v1/models", token), status("/v1/models", secret)] == [200, 401]
        assert [status("/api/v1/models", token), status("/api/v1/models", secret)] == [401, 200]
        made = client.post("/api/v1/groups", json={"name": live.name("group")}, headers={"authorization": secret})
        assert made.status_code == 201 and made.headers["content-type"] == "application/json"
        for path in ("/api/v1", "/api/v1/", "/api/v1/nothing", "/api/v1/chat/completions", "/api/user/nothing"):
            found = client.post(path, json={})
            assert found.status_code == 404 and found.headers["content-type"] == "application/json", path
        large = client.post("/api/v1/groups", content=b"x" * (5 << 20), headers={"authorization": secret})
        assert large.status_code == 413 and large.json()["error"]["code"] == "too_large"
        assert client.get("/api/tags").status_code == 404  # Ollama's, of the relay


def test_errors_are_json_in_any_case(boss: User) -> None:
    script = Script(make_key(boss))
    for method, path, body, status in (
        ("PUT", "/channels", "{}", 405),
        ("GET", "/channels/abc", None, 404),
        ("GET", f"/channels/{10**30}", None, 422),
        ("GET", "/channels/0", None, 422),
        ("POST", "/channels", "{", 400),
        ("POST", "/channels", "[]", 400),
        ("POST", "/channels", '{"name": "a", "name": "b"}', 400),
        ("POST", "/channels", '{"name": "\\ud800"}', 400),
        ("POST", "/channels", '{"name": "\\u0000"}', 400),
        ("POST", "/channels", "[" * 100_000, 400),
        ("POST", "/channels", '{"weight": NaN, "name": "x"}', 400),
        ("POST", "/channels", '{"weight": 1e400, "name": "x"}', 400),
        ("POST", "/channels", '{"nothing": 1, "name": "x"}', 422),
        ("GET", "/channels?nothing=1", None, 400),
        ("GET", "/channels?limit=0", None, 422),
        ("GET", "/channels?name=%00", None, 400),
    ):
        answer = script(method, path, body)
        assert answer.status_code == status, (path, body, answer.content)
        assert answer["Content-Type"] == "application/json" and answer.json()["error"]["message"], path
    form = Client().post("/api/v1/channels", {"name": "x"}, headers={"Authorization": script.secret})
    assert form.status_code == 400
