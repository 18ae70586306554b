"""Scripts that were written for one-api, with its documented calls and its own forms of answers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from django.core.cache import cache

from accounts.models import User
from portal.lib.money import NANO
from relay.billing.redemption import find_code
from relay.models import Channel, LedgerAccount, RedemptionCode, Token
from tests.manage.scripts import Script, make_key, world
from tests.support.portal import People, Portal
from tests.support.server import Server

pytestmark = pytest.mark.shared


@pytest.fixture
def ids(people: People) -> dict[str, int]:
    cache.clear()
    return world(people.staff)


def test_a_script_of_one_apis_documentation_runs_unchanged(server: Server, live: Portal, clean_addresses: Any) -> None:
    """The access token as the whole of `Authorization`; create a token, use it, top up, list."""
    boss, user, model = live.user(is_staff=True, is_superuser=True), live.user(balance=0), live.model()
    access_token = make_key(boss)
    server.catch_up()
    with httpx.Client(base_url=server.url, trust_env=False, timeout=20) as client:

        def call(method: str, path: str, **more: Any) -> Any:
            headers = {"Authorization": access_token, "New-Api-User": str(boss.pk)}
            response = client.request(method, path, headers=headers, **more)
            assert response.status_code == 200
            found = response.json()
            assert set(found) == {"success", "message", "data"} and found["success"] is True, found
            return found["data"]

        unit = client.get("/api/status").json()["data"]["quota_per_unit"]
        assert call("GET", "/api/user/self")["username"] == boss.username
        made = call(
            "POST",
            "/api/token/",
            json={"name": "script", "remain_quota": unit, "expired_time": -1, "unlimited_quota": False},
        )
        server.catch_up()
        models = client.get("/v1/models", headers={"Authorization": f"Bearer sk-{made['key']}"})
        assert models.status_code == 200 and model in {one["id"] for one in models.json()["data"]}
        listed = call("GET", "/api/token/?p=0")
        assert listed[0]["id"] == made["id"] and made["key"] not in str(listed)
        call("POST", "/api/topup", json={"user_id": user.pk, "quota": 100000, "remark": "充值 100000 额度"})
        assert call("GET", f"/api/user/{user.pk}")["quota"] == 100000
        assert call("GET", "/api/log/?p=0&type=1")[0]["content"] == "充值 100000 额度"
        call("DELETE", f"/api/token/{made['id']}")
        server.catch_up()
        assert client.get("/v1/models", headers={"Authorization": f"Bearer sk-{made['key']}"}).status_code == 401
    assert LedgerAccount.objects.get(user=user.pk, kind="wallet").balance == NANO // 5


def test_what_fails_says_so_with_status_200(people: People, ids: dict[str, int]) -> None:
    script = Script(make_key(people.staff), "/api")
    user = ids["users"]
    for method, path, body in (
        ("POST", "/topup", {"user_id": user, "quota": -5}),
        ("POST", "/topup", {"user_id": user, "quota": 0}),
        ("POST", "/topup", {"user_id": user, "quota": 1.5}),
        ("POST", "/topup", {"user_id": user, "quota": True}),
        ("POST", "/topup", {"user_id": user, "quota": 10**18}),
        ("POST", "/topup", {"user_id": 10**30, "quota": 5}),
        ("POST", "/topup", {"quota": 5}),
        ("POST", "/topup", "[]"),
        ("POST", "/topup", "{"),
        ("POST", "/token/", {"name": 5}),
        ("POST", "/token/", {"name": "x" * 300}),
        ("POST", "/token/", {"name": "x", "models": "nothing"}),
        ("POST", "/token/", {"name": "x", "subnet": "nowhere"}),
        ("POST", "/token/", {"name": "x", "expired_time": 5}),
        ("POST", "/token/", {"name": "x", "expired_time": 10**15}),
        ("POST", "/token/", {"name": "x", "remain_quota": -5}),
        ("POST", "/user/", {"username": "uwe"}),
        ("POST", "/user/", {"username": "uwe", "password": "short"}),
        ("PUT", "/user/", {"id": user, "quota": 1}),
        ("PUT", "/user/", {"id": user, "password": "another long one"}),
        ("PUT", "/user/", {"username": "x"}),
        ("POST", "/user/manage", {"username": "ulla", "action": "promote"}),
        ("POST", "/user/manage", {"username": "nobody", "action": "disable"}),
        ("POST", "/user/manage", {"username": people.staff.username, "action": "disable"}),
        ("POST", "/channel/", {"name": "x", "type": 33}),
        ("POST", "/channel/", {"name": "x"}),
        ("POST", "/channel/", {"name": "x", "type": 1, "base_url": "http://169.254.169.254"}),
        ("POST", "/channel/", {"name": "x", "type": 1, "model_mapping": "[]"}),
        ("POST", "/channel/", {"name": "x", "type": 1, "group": "nobody's"}),
        ("PUT", "/channel/", {"id": 0, "name": "x"}),
        ("POST", "/redemption/", {"name": "r", "count": 101, "quota": 5}),
        ("POST", "/redemption/", {"name": "r", "count": 1, "quota": 0}),
        ("PUT", "/redemption/", {"id": ids["redemption-codes"], "status": 1}),
        ("GET", "/token/0", None),
        ("GET", "/log/?p=x", None),
        ("GET", "/log/?start_timestamp=x", None),
    ):
        answer = script(method, path, body)
        found = answer.json()
        assert answer.status_code == 200 and found["success"] is False and found["message"], (path, body, found)
    wrong = Script("wrong", "/api")("GET", "/token/")
    assert wrong.status_code == 200 and wrong.json()["success"] is False
    assert LedgerAccount.objects.get(user=user, kind="wallet").balance == 5 * NANO


def test_tokens_count_what_remains(people: People, ids: dict[str, int]) -> None:
    script = Script(make_key(people.staff), "/api")
    made = script.ok(
        "POST",
        "/token/",
        {
            "name": "t",
            "remain_quota": 500_000,
            "models": "m-1,m-2",
            "subnet": "10.0.0.0/8",
            "expired_time": 1_924_992_000,
        },
    )["data"]
    row = Token.objects.get(pk=made["id"])
    assert (made["remain_quota"], made["unlimited_quota"], made["models"]) == (500_000, False, "m-1,m-2")
    assert made["expired_time"] == 1_924_992_000 and row.models_limited and row.allowed_ips == ["10.0.0.0/8"]
    LedgerAccount.objects.filter(token=row, kind="quota").update(used=NANO // 2)
    assert script.ok("GET", f"/token/{row.pk}")["data"]["remain_quota"] == 250_000
    changed = script.ok("PUT", "/token/", {"id": row.pk, "name": "t", "remain_quota": 1_000_000})["data"]
    assert (changed["remain_quota"], changed["used_quota"]) == (1_000_000, 250_000)
    off = script.ok("PUT", "/token/?status_only=true", {"id": row.pk, "status": 2, "name": "ignored"})["data"]
    assert (off["status"], off["name"]) == (2, "t")
    free = script.ok("PUT", "/token/", {"id": row.pk, "unlimited_quota": True, "models": ""})["data"]
    assert free["unlimited_quota"] is True and free["models"] == ""


def test_channels_are_made_changed_and_deleted(
    people: People, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.manage.oneapi.channels._look_up_prices", lambda *_: None)
    script = Script(make_key(people.staff), "/api")
    sent = {
        "name": "from a script",
        "type": 1,
        "key": "sk-first-secret-0123456789\nsk-second-secret-0123456789",
        "base_url": "https://api.openai.com",
        "models": "m-1,fast",
        "model_mapping": '{"fast": "m-0"}',
        "group": "Guild",
        "priority": 3,
    }
    assert script.ok("POST", "/channel/", sent)["success"]
    row = Channel.objects.get(name="from a script")
    found = script.ok("GET", f"/channel/{row.pk}")["data"]
    assert (found["models"], found["model_mapping"]) == ("fast,m-1", '{"fast": "m-0"}')
    assert (found["group"], found["priority"], found["key"], row.keys.count()) == ("Guild", 3, "", 2)
    assert row.groups_limited and row.base_url in ("", "https://api.openai.com/v1")
    script.ok("PUT", "/channel/", {"id": row.pk, "models": "m-1", "group": "default", "status": 2})
    found = script.ok("GET", "/channel/search?keyword=script")["data"][0]
    assert (found["models"], found["group"], found["status"]) == ("m-1", "default", 2)
    assert script.ok("DELETE", f"/channel/{row.pk}")["success"] and not Channel.objects.filter(pk=row.pk).exists()


def test_codes_are_made_and_redeemable(people: People, ids: dict[str, int]) -> None:
    script = Script(make_key(people.staff), "/api")
    codes = script.ok("POST", "/redemption/", {"name": "spring", "count": 3, "quota": 500_000})["data"]
    rows = [find_code(code) for code in codes]
    assert len(set(codes)) == 3 and all(row is not None and row.batch.amount == NANO for row in rows)
    listed = script.ok("GET", "/redemption/")["data"]
    assert not [code for code in codes if code in str(listed)]
    assert script.ok("DELETE", f"/redemption/{listed[0]['id']}")["success"]
    assert RedemptionCode.objects.get(pk=listed[0]["id"]).enabled is False


def test_users_are_disabled_instead_of_deleted(people: People, ids: dict[str, int]) -> None:
    script = Script(make_key(people.staff), "/api")
    assert script.ok("POST", "/user/", {"username": "uwe", "password": "correct horse", "group": "Guild"})["success"]
    uwe = User.objects.get(username="uwe")
    assert uwe.check_password("correct horse") and [group.name for group in uwe.groups.all()] == ["Guild"]
    assert script.ok("DELETE", f"/user/{uwe.pk}")["success"]
    assert script.ok("GET", "/user/search?keyword=uwe")["data"][0]["status"] == 2
    pages = [script.ok("GET", f"/user/?p={number}&page_size=2")["data"] for number in range(3)]
    seen = [one["id"] for page in pages for one in page]
    assert len(seen) == len(set(seen)) == User.objects.count()
