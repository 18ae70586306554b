"""Scripts of one-api's send back whole rows with one member changed: nothing else changes with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import Group

from accounts.models import User
from portal.lib.money import NANO
from relay.billing.ledger import movements
from relay.models import Channel, ChannelModel, Model, Token
from relay.tokens.lifecycle import create_token
from tests.manage.scripts import Script, give, make_key, world
from tests.support.portal import People

pytestmark = pytest.mark.shared


@pytest.fixture
def ids(people: People) -> dict[str, int]:
    return world(people.staff)


@pytest.fixture
def script(people: People, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> Script:
    monkeypatch.setattr("relay.manage.oneapi.channels._look_up_prices", lambda *_: None)
    return Script(make_key(people.staff), "/api")


def put_back(script: Script, kind: str, pk: int, **changed: Any) -> dict[str, Any]:
    """Read a row, change members of it, send the whole of it. Returns the row as it is then."""
    row = script.ok("GET", f"/{kind}/{pk}")["data"]
    answer = script.ok("PUT", f"/{kind}/", {**row, **changed})
    assert answer["success"], answer
    found: dict[str, Any] = script.ok("GET", f"/{kind}/{pk}")["data"]
    assert found == {**row, **changed}
    return found


def test_a_channel_for_nobody_does_not_become_one_for_everybody(script: Script, ids: dict[str, int]) -> None:
    rows = Channel.objects.filter(pk=ids["channels"])
    rows.update(groups_limited=True)  # its last group was deleted
    put_back(script, "channel", ids["channels"], priority=7)
    assert rows.get().groups_limited and not rows.get().groups.exists() and rows.get().priority == 7
    called = Group.objects.create(name="default")
    rows.get().groups.set([called])
    put_back(script, "channel", ids["channels"], priority=8)
    assert script.ok("PUT", "/channel/", {"id": ids["channels"], "group": "default,Guild"})["success"]
    assert rows.get().groups_limited and set(rows.get().groups.all()) == {called, Group.objects.get(name="Guild")}


def test_a_channel_keeps_its_vendor_and_its_disabled_models(script: Script, ids: dict[str, int]) -> None:
    rows, served = Channel.objects.filter(pk=ids["channels"]), ChannelModel.objects.filter(channel=ids["channels"])
    rows.update(provider="bedrock")  # which one-api has not by such a number
    off = Model.objects.create(name="m-off")
    ChannelModel.objects.create(channel_id=ids["channels"], model=off, enabled=False, upstream_name="far")
    put_back(script, "channel", ids["channels"], priority=7)
    assert rows.get().provider == "bedrock" and served.get(model=off).upstream_name == "far"
    rows.update(provider="openai")
    for models in ("m-1,m-2", "m-2"):
        put_back(script, "channel", ids["channels"], models=models)
        assert not served.get(model=off).enabled
    assert script.ok("PUT", "/channel/", {"id": ids["channels"], "models": "", "group": "", "status": 2})["success"]
    assert {one.model.name for one in served} == {"m-2", "m-off"} and not rows.get().enabled
    assert (
        script.ok("PUT", "/channel/", {"id": ids["channels"], "models": "m-off,m-2"})["data"]["models"] == "m-2,m-off"
    )


def test_models_that_are_served_are_renamed(script: Script, ids: dict[str, int]) -> None:
    served = ChannelModel.objects.get(pk=ids["channel-models"])
    for mapping, name in (({"m-1": "theirs"}, "theirs"), ({"m-1": "other"}, "other")):
        put_back(script, "channel", ids["channels"], model_mapping=json.dumps(mapping))
        served.refresh_from_db()
        assert served.upstream_name == name
    put_back(script, "channel", ids["channels"], priority=3)
    assert script.ok("PUT", "/channel/", {"id": ids["channels"], "model_mapping": ""})["data"]["model_mapping"] == ""


def test_a_user_keeps_all_groups_and_the_name(script: Script, ids: dict[str, int]) -> None:
    user = User.objects.get(pk=ids["users"])
    groups = [Group.objects.get(name="Guild"), Group.objects.create(name="Team")]
    user.groups.set(groups)
    User.objects.filter(pk=user.pk).update(first_name="Ulla", last_name="Beispiel")
    put_back(script, "user", user.pk, email="new@example.org")
    user.refresh_from_db()
    assert (user.first_name, user.last_name, user.email) == ("Ulla", "Beispiel", "new@example.org")
    assert set(user.groups.all()) == set(groups)
    put_back(script, "user", user.pk, group="Team")
    assert [group.name for group in user.groups.all()] == ["Team"]
    assert script.ok("PUT", "/user/", {"id": user.pk, "group": "default"})["success"] and not user.groups.exists()


def test_balances_are_not_found_out_by_those_who_do_not_see_them(people: People, ids: dict[str, int]) -> None:
    clerk = give(User.objects.create_user("clerk", is_staff=True), "accounts.view_user accounts.change_user")
    script = Script(make_key(clerk), "/api")
    said = [script.ok("PUT", "/user/", {"id": ids["users"], "quota": quota})["success"] for quota in (2_500_000, 1)]
    assert said == [False, False]
    put_back(script, "user", ids["users"], email="new@example.org")


def test_a_token_for_no_model_does_not_become_one_for_all(people: People, script: Script, ids: dict[str, int]) -> None:
    token, _secret = create_token(people.staff, "mine", actor=None)
    Token.objects.filter(pk=token.pk).update(models_limited=True)  # its last model was deleted
    put_back(script, "token", token.pk, name="still mine")
    assert Token.objects.get(pk=token.pk).models_limited
    put_back(script, "token", token.pk, remain_quota=500_000, unlimited_quota=False)
    put_back(script, "token", token.pk, remain_quota=250_000)
    put_back(script, "token", token.pk, models="m-1")
    assert script.ok("PUT", "/token/", {"id": token.pk, "models": ""})["success"]
    assert not Token.objects.get(pk=token.pk).models_limited


def test_the_log_of_top_ups_is_of_those_that_were_asked_for(
    people: People, script: Script, ids: dict[str, int]
) -> None:
    movements.top_up(people.other, 3 * NANO, actor=None, reason="theirs")
    log = "/log/?type=1"
    assert len(script.ok("GET", log)["data"]) == 2
    assert [one["content"] for one in script.ok("GET", f"{log}&username=ulla")["data"]] == ["test"]
    assert script.ok("GET", f"{log}&end_timestamp=1000")["data"] == []
    assert script.ok("GET", "/log/self?type=1&username=ulla")["data"] == []
    assert script.ok("GET", "/log/?type=3")["data"] == []
    narrow = Script(make_key(people.staff, "usage:read"), "/api")
    assert narrow.ok("GET", "/log/")["success"] and not narrow.ok("GET", log)["success"]


def test_pages_end(script: Script) -> None:
    assert script.ok("GET", "/user/?p=1000")["data"] == []
    assert not script.ok("GET", "/user/?p=1001")["success"]


def test_another_group_takes_the_place_of_the_shown_one_alone(script: Script, ids: dict[str, int]) -> None:
    user = User.objects.get(pk=ids["users"])
    groups = [Group.objects.create(name=name) for name in ("Beginners", "Limited")]
    user.groups.set(groups)
    row = script.ok("GET", f"/user/{user.pk}")["data"]
    assert row["group"] == "Beginners"
    for name, left in (("Guild", {"Guild", "Limited"}), ("default", {"Limited"})):
        assert script.ok("PUT", "/user/", {"id": user.pk, "group": name})["success"]
        assert set(user.groups.values_list("name", flat=True)) == left


def test_models_that_are_added_have_the_prices_of_the_channels_vendor(
    people: People, ids: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def listings(provider: str, names: object) -> dict[str, object]:
        asked.append(provider)
        return {}

    monkeypatch.setattr("relay.manage.resources.routes.listings_for", listings)
    Channel.objects.filter(pk=ids["channels"]).update(provider="groq")
    script = Script(make_key(people.staff))
    script.ok("PATCH", f"/channels/{ids['channels']}", {"add_models": ["m-2"]})
    assert asked == ["groq"]
