"""The page that explains why a request goes where it goes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client

from portal.lib.money import NANO
from tests.support.asserts import until
from tests.support.money import PRICE
from tests.support.portal import People, Portal, ask
from tests.support.server import Server
from tests.support.sessions import signed_in
from tests.support.upstream import Call, completion

pytestmark = pytest.mark.shared


def explain(client: Client, **asked: Any) -> dict[str, Any]:
    response = client.post("/admin/explain/", json.dumps(asked), content_type="application/json")
    assert response.status_code == 200, response.content
    found: dict[str, Any] = response.json()
    return found


def test_why_a_user_cannot_see_a_model_in_words(live: Portal) -> None:
    from django.contrib.auth.models import Group

    from accounts.models import User
    from portal.lib import clock
    from relay.models import Channel, Model, ModelPermission, Token

    boss = signed_in(live.user(is_staff=True, is_superuser=True))
    user = live.user()
    name = live.model(is_open=False)
    model = Model.objects.get(name=name)
    found = explain(boss, user=user.username, model=name)
    assert (
        not found["allowed"]
        and found["verdict"] == f"{user} cannot see “{name}”."
        and "is not open" in found["obstacles"][0]
        and "in no group" in found["obstacles"][0]
    )
    User.objects.filter(pk=boss.session["_auth_user_id"]).update(language="zh-hans")
    found = explain(boss, user=user.username, model=name)
    assert (
        found["verdict"] == f"{user} 看不到“{name}”。"
        and "未开放" in found["obstacles"][0]
        and found["lines"][0]["standing"] == "正在服务"
    )
    User.objects.filter(pk=boss.session["_auth_user_id"]).update(language="en")
    group = Group.objects.create(name=live.name("group"))
    permission = ModelPermission.objects.create(model=model, group=group)
    assert group.name in explain(boss, user=user.username, model=name)["obstacles"][0]
    user.groups.add(group)
    found = explain(boss, user=user.username, model=name)
    assert found["allowed"] and "can use" in found["verdict"] and found["lines"][0]["standing"] == "serves now"
    permission.expires_at = clock.now()
    permission.save()
    assert "ended on" in explain(boss, user=user.username, model=name)["obstacles"][0]
    permission.expires_at = None
    permission.save()
    live.token(user)
    token = Token.objects.get(user=user)
    token.models_allowed.add(Model.objects.get(name=live.model()))
    assert (
        "limited to other models" in explain(boss, user=user.username, model=name, token=str(token.pk))["obstacles"][0]
    )
    token.models_allowed.clear()
    token.enabled = False
    token.save()
    assert "is disabled" in explain(boss, user=user.username, model=name, token=str(token.pk))["obstacles"][0]
    channel = Channel.objects.get(served__model=model)
    channel.groups.add(Group.objects.create(name=live.name("vip")))
    found = explain(boss, user=user.username, model=name)
    assert "reserved for the groups vip-" in found["lines"][0]["why"] and not found["allowed"]
    channel.enabled = False
    channel.save()
    assert "disabled" in explain(boss, user=user.username, model=name)["lines"][0]["why"]
    assert f"Did you mean “{name}”" in explain(boss, user=user.username, model=name + "s")["obstacles"][0]
    model.enabled = False
    model.save()
    assert any("is disabled" in obstacle for obstacle in explain(boss, user=user.username, model=name)["obstacles"])


def test_why_a_request_goes_where_it_goes(live: Portal, server: Server) -> None:
    from relay.models import Cooldown

    boss = signed_in(live.user(is_staff=True, is_superuser=True))
    user = live.user()
    token = live.token(user)

    async def limited(call: Call) -> None:
        await call.error(429, "Rate limit reached", "rate_limit_exceeded", {"retry-after": "120"})

    first, spare = live.channel(priority=5), live.channel(priority=1)
    model = live.model(channels=[first, spare])

    async def script(call: Call) -> None:
        await (limited(call) if "first" in call.headers["authorization"] else call.reply(200, completion()))

    key = first.keys.get()
    key.set_secret("sk-first-0123456789abcdef")
    key.save()
    live.upstream.script(model, script)
    found = explain(boss, user=user.username, model=model)
    assert [(line["channel"], line["standing"]) for line in found["lines"]] == [
        (first.name, "serves now"),
        (spare.name, "stands by"),
    ]
    assert found["serves"] == f"the channel “{first.name}”"
    assert server.post(token, ask(model)).status_code == 200
    until(lambda: Cooldown.objects.filter(channel=first).exists())
    found = explain(boss, user=user.username, model=model)
    assert [(line["channel"], line["standing"]) for line in found["lines"]] == [
        (first.name, "left alone"),
        (spare.name, "serves now"),
    ]
    assert (
        found["lines"][0]["returns"] is not None
        and "rate limit" in found["lines"][0]["why"]
        and "Rate limit reached" in found["lines"][0]["why"]
    )
    from relay.models import Token

    own = Token.objects.get(user=user)
    form = boss.get(f"/admin/relay/token/{own.pk}/explain/", follow=True).content.decode()
    assert f'value="{user.username}"' in form and f'<option value="{own.pk}" selected>' in form
    page = boss.get(f"/admin/explain/?user={user.username}&model={model}").content.decode()
    assert "left alone" in page and first.name in page


def test_limits_that_are_used_up_are_in_the_way_as_the_gateway_sees_them(live: Portal, server: Server) -> None:
    from decimal import Decimal

    from relay.billing.ledger import movements
    from relay.models import Budget, LedgerAccount, Token

    boss = signed_in(live.user(is_staff=True, is_superuser=True))
    user = live.user(balance=NANO)
    secret = live.token(user)
    token = Token.objects.get(user=user)
    model = live.model(price=PRICE)
    asked = {"user": user.username, "token": str(token.pk), "model": model}
    assert explain(boss, **asked)["allowed"]
    free = live.model()
    for owner, words in (({"user": user}, f"daily budget of {user}, $0.000001"), ({"token": token}, "of the token")):
        budget = Budget.objects.create(period="day", limit=Decimal("0.000001"), **owner)
        found = explain(boss, **asked)
        assert not found["allowed"] and len(found["obstacles"]) == 1 and words in found["obstacles"][0]
        assert "less than any request costs" in found["obstacles"][0] and "fail now" in found["verdict"]
        assert explain(boss, **{**asked, "model": free})["allowed"], "what costs nothing needs no budget"
        budget.delete()
    Budget.objects.create(period="day", limit=Decimal("0.000001"), user=user)
    assert server.post(secret, ask(model)).status_code == 429 and server.post(secret, ask(free)).status_code == 200
    Budget.objects.all().delete()
    movements.set_quota(token, 0)
    assert "quota of the token" in explain(boss, **asked)["obstacles"][-1]
    assert LedgerAccount.objects.filter(token=token, kind="quota").exists()
    movements.set_quota(token, 100_000)
    token.allowed_ips, token.purpose = ["10.0.0.0/8"], "chat"
    token.save()
    found = explain(boss, **asked)
    assert found["allowed"] and len(found["conditions"]) == 3, found
    assert "from 10.0.0.0/8 alone" in found["conditions"][0] and "for chat" in found["conditions"][1].lower()
    assert "$0.0001 is left of the quota" in found["conditions"][2] and "is refused" in found["conditions"][2]


def test_who_may_not_see_money_is_told_no_amounts(live: Portal) -> None:
    """Operators explain routing, and see nobody's balance on any other page either."""
    from decimal import Decimal

    from relay.billing.ledger import movements
    from relay.models import Budget, Token

    operator = live.user(is_staff=True)
    rights = Permission.objects.filter(codename__in=("view_channel", "view_user"))
    operator.user_permissions.add(*rights)
    user, model = live.user(balance=100_000), live.model(price=PRICE)
    live.token(user)
    token = Token.objects.get(user=user)
    asked = {"user": user.username, "token": str(token.pk), "model": model}
    reader, boss = signed_in(operator), signed_in(live.user(is_staff=True, is_superuser=True))
    found = explain(reader, **asked)
    assert any("does not pay for a request of 1000 tokens" in line for line in found["conditions"]), found
    movements.set_quota(token, 0)
    Budget.objects.create(period="day", limit=Decimal("0.000001"), user=user)
    Budget.objects.create(period="week", limit=Decimal("0.000001"), token=token)
    told = explain(reader, **asked)
    assert len(told["obstacles"]) == 3 and "$" not in json.dumps([found, told])
    page = reader.get("/admin/explain/", asked).content.decode()
    assert "quota of the token is used up" in page and "$0" not in page
    assert "$0.000001" in json.dumps(explain(boss, **asked))


def test_explaining_is_for_staff_with_the_right(people: People) -> None:
    from accounts.models import User

    clerk = User.objects.create_user("clerk", password="a long password", is_staff=True)
    asked = json.dumps({"user": "alice", "model": "x"})
    assert signed_in(people.owner).post("/admin/explain/", asked, content_type="application/json").status_code == 302
    assert signed_in(clerk).post("/admin/explain/", asked, content_type="application/json").status_code == 403
    assert signed_in(people.staff).post("/admin/explain/", asked, content_type="application/json").status_code == 200
    for body, status in (
        (b"{", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"user":"nobody","model":"x"}', 404),
        (b'{"user":"alice","model":"x","token":"1e9"}', 404),
        (b'{"user":"\\ud800","model":"x"}', 404),
        (b'{"user":"alice","model":"\\ud800"}', 404),
        (b'{"user":"alice","model":"\\u0000"}', 404),
        (b'{"user":"alice","model":"x","token":"\\udfff"}', 404),
        (b'{"user":"%s","model":"x"}' % (b"x" * 100_000), 404),
        (b'{"user":"alice","model":"%s"}' % (b"x" * 100_000), 404),
        (b"[" * 100_000, 400),
    ):
        assert (
            signed_in(people.staff).post("/admin/explain/", body, content_type="application/json").status_code == status
        )
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(people.staff)
    assert strict.post("/admin/explain/", asked, content_type="application/json").status_code == 403, (
        "not from another site"
    )
