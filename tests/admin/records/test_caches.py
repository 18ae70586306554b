"""The page of prompt caches, and what other pages say of them."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from accounts.models import User
from relay.models import ModelPrice, UsageRecord
from relay.usage import rollup
from tests.support.portal import People
from tests.support.sessions import clerk, signed_in
from tests.usage.conversations.turns import channel, turn

pytestmark = pytest.mark.shared


@pytest.fixture
def moved(db: None, people: People) -> UsageRecord:
    """A turn that left the channel Main, whose cache had its prompt, and the sums with it."""
    (main, (key,)), (spare, (other,)) = channel("Main"), channel("Spare", priority=-1)
    price = ModelPrice.objects.create(model=main.models.get(), input=3, cached_input=Decimal("0.3"), output=15)
    away = {"instead_of": [main.pk, key.pk], "because": "rate", "cooling": True}
    log = [{"channel": spare.pk, "key": other.pk, "ms": 5, "outcome": "ok", **away}]
    turn(people.owner, key, 60, cached_input_tokens=8000, price=price)
    found = turn(people.owner, other, 10, attempt_log=log, cache_write_tokens=9000, price=price)
    rollup.catch_up()
    return found


def test_an_empty_portal_has_a_page_that_says_so(staff: Client) -> None:
    page = staff.get("/admin/caches/").content.decode()
    assert "No prompt in 30 days." in page and "None that is known." in page


def test_shares_and_switches_with_their_cost_and_reason(staff: Client, moved: UsageRecord) -> None:
    page = staff.get("/admin/caches/").content.decode()
    for text in ("Main 0", "Spare 0", "80 %", "it was left alone after failures (rate limit)", "≈ $0.0216", "8,000"):
        assert text in page, text
    assert "sk-ant" not in page and moved.request_id in page
    assert staff.get(f"/admin/relay/usagerecord/?q={moved.request_id}").status_code == 302
    spare = staff.get(f"/admin/caches/?channel={moved.channel_id}").content.decode()
    assert "Spare 0" in spare and "Main 0" not in spare and "None that is known." in spare
    assert staff.get("/admin/caches/?channel=999999").status_code == 404
    for query in ("channel=x", "before=x", "before=1", "channel=99999999999999999999"):
        assert staff.get(f"/admin/caches/?{query}").status_code == 200, query
    board = staff.get("/admin/").content.decode()
    assert "Left a warm cache" in board and "estimated cost" in board and "/admin/caches/" in board


def test_pages_of_switches_follow_each_other(staff: Client, moved: UsageRecord) -> None:
    from relay.models import CacheSwitch

    row = CacheSwitch.objects.get()
    for number in range(60):
        row.pk, row.request_id = None, f"req_n{number:031x}"
        row.save()
    first = staff.get("/admin/caches/")
    assert len(first.context["rows"]) == 50
    second = staff.get("/admin/caches/" + first.context["older"])
    assert len(second.context["rows"]) == 11 and not second.context["older"]


def test_who_may_not_see_money_sees_no_cost(moved: UsageRecord) -> None:
    page = clerk("view_usagerecord", "view_channel").get("/admin/caches/").content.decode()
    assert "8,000" in page and "$0" not in page and "estimated" not in page and "/admin/accounts/user/" not in page


def test_each_door_asks(moved: UsageRecord, people: People) -> None:
    assert Client().get("/admin/caches/").status_code == 302
    assert signed_in(people.owner).get("/admin/caches/").status_code == 302
    for right in ("view_usagerecord", "view_channel"):
        user = User.objects.create_user(right, is_staff=True)
        from django.contrib.auth.models import Permission

        user.user_permissions.set(Permission.objects.filter(codename=right))
        assert signed_in(user).get("/admin/caches/").status_code == 403, right


def test_receipts_say_why_the_cache_was_missed(staff: Client, moved: UsageRecord, people: People) -> None:
    page = staff.get(f"/admin/relay/usagerecord/{moved.pk}/change/").content.decode()
    assert "answered by the channel “Main”" in page and "it was left alone after failures" in page
    own = signed_in(people.owner).get(f"/usage/{moved.request_id}/").content.decode()
    assert "answered by another upstream" in own and "“Main”" not in own
    assert signed_in(people.other).get(f"/usage/{moved.request_id}/").status_code == 404


def explain(client: Client, **asked: Any) -> dict[str, Any]:
    response = client.post("/admin/explain/", json.dumps(asked), content_type="application/json")
    assert response.status_code == 200, response.content
    found: dict[str, Any] = response.json()
    return found


def test_explain_has_the_newest_requests_and_the_models_settings(
    staff: Client, moved: UsageRecord, people: People
) -> None:
    found = explain(staff, user="alice", model="m")
    assert [line["share"] for line in found["caches"]] == ["0 %", "80 %"]
    assert "“Main”" in found["caches"][0]["why"] and found["caches"][0]["request_id"] == moved.request_id
    assert not any("set to fail" in one for one in found["conditions"])
    model = moved.channel.models.get()
    model.keeps_cache = model.native_only = True
    model.save()
    warm, native = explain(staff, user="alice", model="m")["conditions"][-2:]
    assert "warm_channel_unavailable" in warm
    assert "answers requests of Anthropic Messages" in native and "those of chat completions, responses" in native
    page = staff.get("/admin/explain/?user=alice&model=m").content.decode()
    assert "The newest requests and their caches" in page and f"/usagerecord/{moved.pk}/" in page
    blind = clerk("view_channel", "view_user")
    assert explain(blind, user="alice", model="m")["caches"] == [], "usage is not for everybody"
    assert explain(staff, user="bob", model="m")["caches"] == []


def test_the_usage_page_has_the_share_of_each_model(moved: UsageRecord, people: People) -> None:
    page = signed_in(people.owner).get("/usage/").content.decode()
    assert "(40 %)" in page
    assert "(40 %)" not in signed_in(people.other).get("/usage/").content.decode()
