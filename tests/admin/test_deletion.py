"""Deletion in the admin: what the portal itself wrote about a row goes with it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.auth.models import Group, Permission
from django.test import Client

from accounts.models import GroupSettings, User
from portal.lib import clock
from relay.models import ApiKey, Channel, ChannelEvent, ChannelModel, Cooldown, Model, ModelPrice, Pool
from tests.support.money import record
from tests.support.portal import People

pytestmark = pytest.mark.shared


@pytest.fixture
def channel(db: None) -> Channel:
    """A channel in a pool with a key, a model and all that the portal writes about them."""
    found = Channel.objects.create(name="used", provider="openai", pool=Pool.objects.create(name="both"))
    key = ApiKey(channel=found)
    key.set_secret("sk-secret-0123456789abcdef")
    key.save()
    model = Model.objects.create(name="served")
    ChannelModel.objects.create(channel=found, model=model)
    ModelPrice.objects.create(model=model, input=1, output=2, source="genai-prices: openai served")
    ModelPrice.objects.create(model=model, channel=found, purpose="cost", input=1, output=2)
    ChannelEvent.write(found.pk, "created")
    now = clock.now()
    for number, (of_key, of_model) in enumerate(((None, None), (key, None), (None, model), (key, model))):
        Cooldown.objects.create(
            place=f"{found.pk}:{number}:0",
            channel=found,
            api_key=of_key,
            model=of_model,
            kind="rate",
            since=now,
            until=now + timedelta(minutes=5),
        )
    return found


@pytest.mark.parametrize(("kind", "left"), [("channel", 0), ("model", 2), ("pool", 4)])
def test_what_the_portal_wrote_keeps_nobody_from_deleting(
    staff: Client, channel: Channel, kind: str, left: int
) -> None:
    row = {"channel": channel, "model": channel.models.get(), "pool": channel.pool}[kind]
    assert row is not None
    url = f"/admin/relay/{kind}/{row.pk}/delete/"
    page = staff.get(url).content.decode()
    assert "permission to delete" not in page and 'name="post"' in page
    assert staff.post(url, {"post": "yes"}).status_code == 302
    assert not type(row)._default_manager.filter(pk=row.pk).exists() and Cooldown.objects.count() == left


def test_many_are_deleted_from_the_list(staff: Client, channel: Channel) -> None:
    chosen = {"action": "delete_selected", "_selected_action": [channel.pk], "post": "yes"}
    staff.post("/admin/relay/channel/", chosen)
    assert not Channel.objects.filter(pk=channel.pk).exists() and not ApiKey.objects.exists()


def test_a_key_is_deleted_on_the_page_of_its_channel(staff: Client, channel: Channel) -> None:
    key = channel.keys.get()
    form = {
        "name": channel.name, "provider": "openai", "base_url": "", "priority": 0, "weight": 1, "enabled": "on",
        "key_strategy": "random", "retry_unanswered": "broken", "parameters": "{}", "cost_multiplier": 1,
        "disconnect_policy": "delivered", "keys-TOTAL_FORMS": 1, "keys-INITIAL_FORMS": 1, "keys-0-id": key.pk,
        "keys-0-channel": channel.pk, "keys-0-weight": 1, "keys-0-DELETE": "on", "served-TOTAL_FORMS": 0,
        "served-INITIAL_FORMS": 0,
    }  # fmt: skip
    page = staff.post(f"/admin/relay/channel/{channel.pk}/change/", form)
    assert page.status_code == 302 and not ApiKey.objects.exists() and Cooldown.objects.count() == 2


def test_users_and_tokens_are_still_kept(staff: Client, people: People) -> None:
    assert staff.post(f"/admin/accounts/user/{people.owner.pk}/delete/", {"post": "yes"}).status_code == 403
    assert User.objects.filter(pk=people.owner.pk).exists()


def test_what_people_wrote_needs_permission_as_before(channel: Channel, people: People) -> None:
    client = Client()
    people.other.is_staff = True
    people.other.save()
    client.force_login(people.other)
    url = f"/admin/relay/channel/{channel.pk}/delete/"
    assert client.post(url, {"post": "yes"}).status_code == 403
    wanted = ["view_channel", "delete_channel"]
    people.other.user_permissions.set(Permission.objects.filter(codename__in=wanted))
    page = client.get(url).content.decode()
    assert "permission to delete" in page and "cooldown" not in page.partition("permission to delete")[2][:400]
    client.post(url, {"post": "yes"})
    assert Channel.objects.filter(pk=channel.pk).exists(), "its prices were typed by somebody"
    people.other.user_permissions.add(Permission.objects.get(codename="delete_modelprice"))
    assert client.post(url, {"post": "yes"}).status_code == 302
    assert not Channel.objects.filter(pk=channel.pk).exists()


@pytest.mark.parametrize("kind", ["model", "channel"])
def test_what_has_a_used_price_is_not_deleted_but_disabled(
    staff: Client, people: People, channel: Channel, kind: str
) -> None:
    model = channel.models.get()
    price = ModelPrice.objects.create(
        model=model, channel=channel if kind == "channel" else None, valid_from=clock.now(), input=1, output=2
    )
    record(people.owner, price=price)
    row = {"channel": channel, "model": model}[kind]
    url = f"/admin/relay/{kind}/{row.pk}/delete/"
    page = staff.get(url).content.decode()
    assert "Disable it instead" in page and str(price) in page and 'name="post"' not in page
    staff.post(url, {"post": "yes"})
    chosen = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    assert "Disable it instead" in staff.post(f"/admin/relay/{kind}/", chosen).content.decode()
    many = {**chosen, "select_across": "1", "count": "1"}
    assert str(price) in staff.post(f"/admin/relay/{kind}/", many).content.decode()
    assert type(row)._default_manager.filter(pk=row.pk).exists() and ModelPrice.objects.filter(pk=price.pk).exists()


def test_pages_of_deletion_name_what_goes(staff: Client, people: People) -> None:
    group = Group.objects.create(name="Partners")
    group.permissions.set(Permission.objects.all()[:3])
    group.user_set.add(people.owner)
    GroupSettings.objects.create(group=group)
    many = {"action": "delete_selected", "_selected_action": [group.pk]}
    pages = [staff.get(f"/admin/auth/group/{group.pk}/delete/"), staff.post("/admin/auth/group/", many)]
    for page in pages:
        text = page.content.decode()
        assert "Partners" in text and " object (" not in text and "relationship" not in text
