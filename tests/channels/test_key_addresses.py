"""A key is sent to the address that it was given for, whoever changes the channel and however."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client

from relay.channels.health_checks import test_key as try_key
from relay.channels.probe import fetch_balance, fetch_models, probe_channel
from relay.channels.status import channel_status
from relay.gateway.snapshot.load import load_snapshot
from relay.models import ApiKey, Channel, ChannelModel, Model
from relay.models.channel import KeyGivenElsewhere
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.sessions import signed_in
from tests.support.upstream import Upstream

pytestmark = pytest.mark.shared
SECRET = "sk-upstream-secret-0123456789"


def keys_sent(channel: Channel) -> list[str]:
    """What the relay would send to the channel's address."""
    views = {route.channel.id: route.channel for model in load_snapshot().models.values() for route in model.routes}
    return [key.headers.get("authorization", "") for key in views[channel.pk].keys]


@pytest.fixture
def channel(db: None, upstream: Upstream) -> Channel:
    found: Channel = Portal(upstream).channel(keys=(SECRET,))
    ChannelModel.objects.create(channel=found, model=Model.objects.create(name="chat"))
    assert keys_sent(found) == [f"Bearer {SECRET}"]
    return found


def form(channel: Channel, **values: Any) -> dict[str, Any]:
    key = channel.keys.get()
    return {
        "name": channel.name,
        "provider": channel.provider,
        "base_url": channel.base_url,
        "enabled": "on",
        "priority": "0",
        "weight": "1",
        "sends_done": "on",
        "stream_usage": "on",
        "cost_multiplier": "1",
        "disconnect_policy": "delivered",
        "key_strategy": "random",
        "retry_unanswered": "broken",
        "keys-TOTAL_FORMS": 1,
        "keys-INITIAL_FORMS": 1,
        "keys-0-id": key.pk,
        "keys-0-channel": channel.pk,
        "keys-0-enabled": "on",
        "keys-0-weight": "1",
        "served-TOTAL_FORMS": 0,
        "served-INITIAL_FORMS": 0,
        **values,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "http://127.0.0.1:9/v1"},
        {"base_url": "https://127.0.0.1/v1"},
        {"base_url": ""},
        {"base_url": "", "provider": "deepseek"},
        {"proxy_url": "http://127.0.0.1:9"},
    ],
)
def test_a_channel_with_another_address_keeps_its_keys_to_itself(
    staff: Client, channel: Channel, change: dict[str, str]
) -> None:
    before = channel.base_url
    page = staff.post(f"/admin/relay/channel/{channel.pk}/change/", form(channel, **change), follow=True)
    assert "given for another address" in page.content.decode()
    channel.refresh_from_db()
    key = channel.keys.get()
    assert keys_sent(channel) == [] and not key.is_for(channel)
    found = channel_status(channel.pk)
    assert found is not None and found.state == "down"
    for send in (lambda: probe_channel(channel, key, "m"), lambda: fetch_models(channel, key)):
        with pytest.raises(KeyGivenElsewhere):
            send()
    assert "given for another address" in try_key(channel, key, "m").message
    if channel.vendor.balance is not None:
        with pytest.raises(KeyGivenElsewhere):
            fetch_balance(channel, key)
    staff.post(f"/admin/relay/channel/{channel.pk}/change/", form(channel, base_url=before, provider="openai"))
    assert keys_sent(channel) == [f"Bearer {SECRET}"], "nothing is lost by a typing error"


def test_other_ways_to_change_an_address_change_nothing_about_that(channel: Channel) -> None:
    Channel.objects.filter(pk=channel.pk).update(base_url="https://elsewhere.example.org/v1")
    assert keys_sent(channel) == []
    other = Channel.objects.create(name="other", provider="openai", base_url="https://elsewhere.example.org/v1")
    ChannelModel.objects.create(channel=other, model=Model.objects.get())
    ApiKey.objects.update(channel=other)
    assert keys_sent(other) == []
    ApiKey.objects.update(given_for="")
    assert keys_sent(other) == [], "nothing is not everything"


def test_a_secret_typed_with_the_new_address_is_for_that(staff: Client, channel: Channel) -> None:
    values = {"base_url": "http://127.0.0.1:9/v1", "keys-0-secret": "sk-another-0123456789"}
    page = staff.post(f"/admin/relay/channel/{channel.pk}/change/", form(channel, **values), follow=True)
    assert "given for another address" not in page.content.decode()
    assert keys_sent(channel) == ["Bearer sk-another-0123456789"]


def test_another_path_or_name_at_the_same_address_needs_no_new_key(staff: Client, channel: Channel) -> None:
    url = channel.base_url.removesuffix("/v1")
    staff.post(f"/admin/relay/channel/{channel.pk}/change/", form(channel, base_url=f"{url}/v2", name="renamed"))
    assert keys_sent(channel) == [f"Bearer {SECRET}"]


def test_an_operator_cannot_have_a_key_sent_to_an_own_address(server: Server, live: Portal, second: Upstream) -> None:
    person = live.user(is_staff=True)
    person.groups.add(Group.objects.get(name="Operator"))
    channel = live.channel(keys=(SECRET,))
    model, token = live.model(channels=[channel]), live.token()
    assert server.post(token, ask(model)).status_code == 200
    answer = signed_in(person).post(
        f"/admin/relay/channel/{channel.pk}/change/", form(channel, base_url=second.base_url)
    )
    assert answer.status_code == 302
    server.catch_up()
    assert server.post(token, ask(model)).status_code == 503
    assert second.calls == []
