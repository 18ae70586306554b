"""The admin's pages of routing: pools, failure rules, cooldowns, keys out of service."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from accounts.models import AuditEvent, Change
from portal.lib import clock
from relay.channels.keys import take_out
from relay.models import ApiKey, Channel, ChannelModel, Cooldown, FailureRule, Model, Pool
from tests.support.portal import People

pytestmark = pytest.mark.shared


@pytest.fixture
def channel(db: None) -> Channel:
    found = Channel.objects.create(name="main", provider="openai")
    for number in range(2):
        key = ApiKey(channel=found, label=f"account {number}")
        key.set_secret(f"sk-secret-{number}-0123456789abcdef")
        key.save()
    ChannelModel.objects.create(channel=found, model=Model.objects.create(name="m"))
    return found


def cooldown(channel: Channel) -> Cooldown:
    now = clock.now()
    return Cooldown.objects.create(
        place=f"{channel.pk}:0:0",
        channel=channel,
        kind="overload",
        detail="HTTP 529: busy",
        since=now,
        until=now + timedelta(minutes=5),
    )


RULE: dict[str, Any] = {
    "position": 5,
    "provider": "",
    "status": "",
    "word": "",
    "text": "",
    "failure_class": "rate",
    "cooldown": "",
    "enabled": "on",
    "note": "",
}


def test_the_top_of_a_channels_page_says_all_that_is_wrong(staff: Client, channel: Channel) -> None:
    url, history = (f"/admin/relay/channel/{channel.pk}/{page}/" for page in ("change", "events"))
    assert 'class="ar-state up">up<' in staff.get(url).content.decode()
    in_use, dead = channel.keys.all()
    now = clock.now()
    model = channel.models.get()
    Channel.objects.filter(pk=channel.pk).update(test_ok=False, test_message="no such host", tested_at=now)
    page = staff.get(url).content.decode()
    assert 'class="ar-state partly">up, last test failed<' in page and "failed: no such host" in page
    assert "Channel “main” failed its last test: no such host" in staff.get("/admin/").content.decode()
    for place, of_key, of_model in (("1", in_use, None), ("2", in_use, model), ("3", None, model)):
        Cooldown.objects.create(
            place=f"{channel.pk}:{place}:0",
            channel=channel,
            api_key=of_key,
            model=of_model,
            kind="rate",
            detail="HTTP 429: slow down",
            since=now,
            until=now + timedelta(minutes=5),
        )
    Cooldown.objects.create(
        place=f"{channel.pk}:api:responses",
        channel=channel,
        kind="no_api",
        detail="/v1/responses: HTTP 404",
        since=now,
        until=now + timedelta(hours=5),
    )
    take_out(dead.pk, "key_dead", "HTTP 401: no such key")
    for path in (url, history):
        page = staff.get(path).content.decode()
        assert "failed: no such host" in page
        for what in ("The key account 0", "The key account 0 for the model m", "The model m"):
            assert f"{what} is left alone until" in page
        assert "rate limit (HTTP 429: slow down)" in page and "The upstream lacks /v1/responses: HTTP 404" in page
        assert "The key account 1 is out of service since" in page and "next test:" in page
        assert f'href="/admin/relay/channel/{channel.pk}/put-back/"' in page
        assert f'href="/admin/relay/channel/{channel.pk}/test/"' in page
    channel.keys.update(label="")
    page = staff.get(url).content.decode()
    assert f"The key #{in_use.pk} is left alone" in page and f"The key #{dead.pk} is out of service" in page
    listed, front = (staff.get(path).content.decode() for path in ("/admin/relay/channel/", "/admin/"))
    for page in (listed, front):
        assert 'class="ar-state cooling"' in page, "the only key in service is left alone"
    cooldown(channel)
    assert "The channel is left alone until" in staff.get(url).content.decode()


def test_thousands_of_cooldowns_are_not_all_described(staff: Client, channel: Channel) -> None:
    now = clock.now()
    models = Model.objects.bulk_create(Model(name=f"many-{number}") for number in range(50))
    Cooldown.objects.bulk_create(
        Cooldown(
            place=f"{channel.pk}:0:{model.pk}",
            channel=channel,
            model=model,
            kind="overload",
            since=now,
            until=now + timedelta(minutes=5),
        )
        for model in models
    )
    page = staff.get(f"/admin/relay/channel/{channel.pk}/change/").content.decode()
    assert page.count("is left alone until") == 10 and "40 more are left alone" in page


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "Say at least a status, a code or a text"),
        ({"text": "("}, "no regular expression"),
        ({"text": "x*"}, "fits an empty message"),
        ({"text": "(a+)+b"}, "can take for ever"),
        ({"status": "99"}, "greater than or equal to 200"),
        ({"status": "400", "failure_class": "timeout"}, "not one of the available choices"),
    ],
)
def test_rules_that_make_no_sense_are_refused_with_the_reason(staff: Client, fields: dict[str, str], says: str) -> None:
    page = staff.post("/admin/relay/failurerule/add/", {**RULE, **fields})
    assert page.status_code == 200 and says in page.content.decode().replace("&#x27;", "'")
    assert not FailureRule.objects.exists()


def test_a_rule_is_made_switched_and_announced(staff: Client) -> None:
    assert (
        staff.post(
            "/admin/relay/failurerule/add/", {**RULE, "status": "400", "word": "NAP_TIME", "text": "naps?"}
        ).status_code
        == 302
    )
    rule = FailureRule.objects.get()
    assert rule.rule().fits("openai", 400, frozenset({"nap_time"}), "it naps") and not rule.rule().fits(
        "openai", 500, frozenset({"nap_time"}), "it naps"
    )
    assert Change.objects.filter(topic="catalog").exists()
    staff.post("/admin/relay/failurerule/", {"action": "disable", "_selected_action": rule.pk})
    rule.refresh_from_db()
    assert not rule.enabled
    staff.post("/admin/relay/failurerule/", {"action": "enable", "_selected_action": rule.pk})
    assert list(AuditEvent.objects.filter(action__startswith="failure-rule").values_list("action", flat=True)) == [
        "failure-rule.enable",
        "failure-rule.disable",
    ]


def test_a_cooldown_is_shown_and_ended_by_those_who_may_change_channels(
    staff: Client, people: People, channel: Channel
) -> None:
    from django.contrib.auth.models import Permission

    from accounts.models import User

    row = cooldown(channel)
    page = staff.get("/admin/relay/cooldown/").content.decode()
    assert "overloaded" in page and "HTTP 529: busy" in page and "main" in page
    assert "cooling" in staff.get("/admin/relay/channel/").content.decode()
    reader = User.objects.create_user("reader", password="a long password", is_staff=True)
    reader.user_permissions.add(Permission.objects.get(codename="view_cooldown"))
    other = Client()
    other.force_login(reader)
    assert other.get("/admin/relay/cooldown/").status_code == 200
    other.post("/admin/relay/cooldown/", {"action": "try_again_now", "_selected_action": row.pk})
    assert Cooldown.objects.exists(), "seeing is not ending"
    other.force_login(people.owner)
    assert other.get("/admin/relay/cooldown/").status_code == 302
    staff.post("/admin/relay/cooldown/", {"action": "try_again_now", "_selected_action": row.pk})
    assert not Cooldown.objects.exists()
    assert AuditEvent.objects.get(action="cooldown.end").detail["place"] == row.place
    assert Change.objects.filter(topic="cooldown", key=row.place).exists()
    for path in (f"/admin/relay/cooldown/{row.pk}/change/", "/admin/relay/cooldown/add/"):
        assert staff.post(path, {}).status_code in {302, 403}


def test_a_key_out_of_service_is_explained_and_put_back(staff: Client, channel: Channel) -> None:
    key = channel.keys.all()[0]
    assert take_out(key.pk, "billing", "HTTP 402: Insufficient Balance") and not take_out(key.pk, "billing", "again")
    page = staff.get(f"/admin/relay/channel/{channel.pk}/change/").content.decode()
    assert "HTTP 402: Insufficient Balance" in page and "out of service: account without money" in page
    assert "1, 1 out of service" in staff.get("/admin/relay/channel/").content.decode()
    assert "The account behind the key account 0 of “main” is empty" in staff.get("/admin/").content.decode()
    cooldown_row = Cooldown.objects.create(
        place=f"{channel.pk}:{key.pk}:0",
        channel=channel,
        api_key=key,
        kind="billing",
        since=clock.now(),
        until=clock.now(),
    )
    url = f"/admin/relay/channel/{channel.pk}/put-back/"
    assert "account 0" in staff.get(url).content.decode()
    key.refresh_from_db()
    assert key.auto_disabled, "asking changes nothing"
    assert staff.post(url).status_code == 302
    key.refresh_from_db()
    assert key.auto_disabled == "" and key.next_test_at is None
    assert not Cooldown.objects.filter(pk=cooldown_row.pk).exists()
    assert AuditEvent.objects.get(action="key.put-back").actor is not None


def test_a_new_secret_puts_a_key_back(channel: Channel) -> None:
    from relay.admin.forms import ApiKeyForm

    key = channel.keys.all()[0]
    take_out(key.pk, "key_dead", "HTTP 401")
    key.refresh_from_db()
    form = ApiKeyForm({"label": "x", "enabled": "on", "weight": "1", "secret": ""}, instance=key)
    assert form.is_valid() and form.save().auto_disabled == "key_dead", "another label is no other key"
    form = ApiKeyForm({"label": "x", "enabled": "on", "weight": "1", "secret": "sk-another-0123456789"}, instance=key)
    assert form.is_valid() and form.save().auto_disabled == ""


def test_a_key_that_is_disabled_by_hand_is_not_put_back_by_anybody_else(channel: Channel) -> None:
    key = channel.keys.all()[0]
    key.enabled = False
    key.save()
    assert not take_out(key.pk, "billing", "x"), "it is out already"


def test_pools_count_their_channels(staff: Client, channel: Channel) -> None:
    channel.pool = Pool.objects.create(name="accounts", strategy="round_robin")
    channel.save()
    page = staff.get("/admin/relay/pool/").content.decode()
    assert "accounts" in page and "in turn, by weight" in page
    channel.pool.delete()
    channel.refresh_from_db()
    assert channel.pool is None, "channels outlive their pool"
