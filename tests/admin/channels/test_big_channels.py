"""Channels with thousands of models and keys: each page stays small, and everything can be found and changed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib import admin
from django.test import Client, RequestFactory

from accounts.admin.inlines import PagedInline
from accounts.models import AuditEvent, Change, User
from relay.admin.channels.guide.prices import MOST_PRICES
from relay.channels.keys import add_keys
from relay.channels.models import add_models
from relay.models import ApiKey, Channel, ChannelModel, Model, ModelPermission, ModelPrice, Token
from tests.support.pages.filled import filled, size_of_form
from tests.support.portal import People

pytestmark = pytest.mark.shared
FEW = 400
"""Fields of a form at most."""


@pytest.fixture
def big(db: None) -> Channel:
    channel = Channel.objects.create(name="Aggregator", provider="openrouter", priority=3)
    add_models(channel, [(f"vendor/model-{number:04}", "") for number in range(1200)], {})
    add_keys(channel, [f"sk-made-up-{number:08}" for number in range(600)])
    return channel


def test_channel_with_a_thousand_models_can_be_changed(staff: Client, big: Channel) -> None:
    url = f"/admin/relay/channel/{big.pk}/change/"
    page = staff.get(url).content.decode()
    assert size_of_form(page) < FEW
    assert f"/admin/relay/apikey/?channel__id__exact={big.pk}" in page and "All 1200 in a list" in page
    changes = {"priority": "7", "served-0-upstream_name": "called-otherwise", "keys-0-label": "first"}
    answer = staff.post(url, filled(page, **changes))
    assert answer.status_code == 302, re.findall(r"errorlist.*", answer.content.decode())
    big.refresh_from_db()
    assert big.priority == 7 and big.keys.filter(label="first").count() == 1
    assert ChannelModel.objects.get(upstream_name="called-otherwise").model.name == "vendor/model-0000"
    assert (big.served.count(), big.keys.count()) == (1200, 600)


def test_the_ninth_page_of_models_is_changed_though_rows_moved_meanwhile(staff: Client, big: Channel) -> None:
    url = f"/admin/relay/channel/{big.pk}/change/?served-page=9"
    page = staff.get(url).content.decode()
    assert filled(page)["served-0-id"][0] == str(ChannelModel.objects.get(model__name="vendor/model-0120").pk)
    Model.objects.filter(name__lt="vendor/model-0100").delete()
    changes = {"served-1-upstream_name": "moved", "served-2-DELETE": "on"}
    assert staff.post(url, filled(page, **changes)).status_code == 302
    assert ChannelModel.objects.get(upstream_name="moved").model.name == "vendor/model-0121"
    assert not big.served.filter(model__name="vendor/model-0122").exists() and big.served.count() == 1099
    for number in ("²", "0", "99999999999999999999", "-1", "x", "1000"):
        assert staff.get(f"/admin/relay/channel/{big.pk}/change/?served-page={number}").status_code == 200


@pytest.mark.parametrize(("kind", "many", "word"), [("channelmodel", 1200, "1199"), ("apikey", 600, "")])
def test_rows_are_found_and_changed_in_a_list_of_their_own(
    staff: Client, big: Channel, kind: str, many: int, word: str
) -> None:
    other = Channel.objects.create(name="other", provider="openai")
    add_models(other, [("elsewhere", "")], {})
    add_keys(other, ["sk-elsewhere-0123456789"])
    url = f"/admin/relay/{kind}/?channel__id__exact={big.pk}"
    page = staff.get(url).content.decode()
    assert "of “Aggregator”" in page and size_of_form(page) < FEW
    if word:
        found = staff.get(f"{url}&q={word}").content.decode()
        assert "vendor/model-1199" in found and "vendor/model-0001" not in found
    rows: Any = {"channelmodel": ChannelModel, "apikey": ApiKey}[kind]._default_manager
    chosen = {"_selected_action": ["0"], "select_across": "1"}
    assert staff.post(url, {"action": "disable", **chosen}).status_code == 302
    assert rows.filter(enabled=False).count() == many and rows.filter(enabled=True).count() == 1
    assert AuditEvent.objects.filter(action=f"{kind}.disable").count() == many
    assert Change.objects.filter(topic="catalog").count() == 1, "one transaction, as this test is, makes one"
    page = staff.post(url, {"action": "delete_selected", **chosen}).content.decode()
    assert f"Delete {many} rows" in page and size_of_form(page) < 20
    assert rows.count() == many + 1
    stale = {"action": "delete_selected", "post": "yes", "count": many + 5, **chosen}
    assert "has changed since" in staff.post(url, stale).content.decode() and rows.count() == many + 1
    assert staff.post(url, {**stale, "count": many}).status_code == 302
    assert rows.count() == 1 and AuditEvent.objects.filter(action=f"{kind}.delete").count() == many


def test_deleting_many_asks_what_one_may_delete(people: People, big: Channel) -> None:
    from tests.support.sessions import clerk

    ModelPrice.objects.create(model=Model.objects.get(name="vendor/model-0003"), input=1, output=1)
    person = clerk("view_model", "delete_model", "view_channelmodel")
    chosen = {"action": "delete_selected", "_selected_action": ["0"], "select_across": "1"}
    page = person.post("/admin/relay/model/", chosen).content.decode()
    assert "may not delete what goes with them" in page and ">Delete<" not in page
    person.post("/admin/relay/model/", {**chosen, "post": "yes", "count": Model.objects.count()})
    assert Model.objects.count() >= 1200
    person.post(f"/admin/relay/channelmodel/?channel__id__exact={big.pk}", {**chosen, "post": "yes", "count": 1200})
    assert big.served.count() == 1200


def test_keys_stay_with_the_channel_that_they_were_given_for(staff: Client, big: Channel) -> None:
    other = Channel.objects.create(name="other", provider="openai")
    key = big.keys.order_by("pk")[0]
    url = f"/admin/relay/apikey/{key.pk}/change/"
    form = {"channel": other.pk, "label": "moved", "enabled": "on", "weight": 2, "max_rpm": 5}
    assert staff.post(url, form).status_code == 302
    key.refresh_from_db()
    assert (key.channel, key.label, key.max_rpm) == (big, "moved", 5) and key.secret_for(big) == "sk-made-up-00000000"
    answer = staff.post(url, {**form, "secret": "sk-made-up-00000007"})
    assert answer.status_code == 200 and "has this key already" in answer.content.decode()
    page = staff.get(f"/admin/relay/apikey/add/?_changelist_filters=channel__id__exact%3D{big.pk}").content.decode()
    assert f'<option value="{big.pk}" selected' in page


def test_what_was_pasted_twice_is_one_key(staff: Client, big: Channel) -> None:
    form = staff.get(f"/admin/relay/channel/{big.pk}/change/").content.decode()
    pasted = "sk-made-up-00000001\nsk-new-0000000001\nsk-made-up-00000599"
    page = staff.post(
        f"/admin/relay/channel/{big.pk}/change/", filled(form, form_key=None, new_keys=pasted), follow=True
    )
    assert "2 of the pasted keys were there already" in page.content.decode() and big.keys.count() == 601
    for wrong in ("sk-a0123456789,sk-b0123456789", "sk-a0123456789;sk-b0123456789", '"sk-quoted"', "Bearer sk-a"):
        page = staff.post(f"/admin/relay/channel/{big.pk}/change/", filled(form, form_key=None, new_keys=wrong))
        assert page.status_code == 200 and "is no key" in page.content.decode()
    guide = staff.post("/admin/setup/keys/", {"channel": big.pk, "keys": pasted}, follow=True).content.decode()
    assert "3 of the pasted keys were there already" in guide and big.keys.count() == 601


def test_the_guide_holds_a_thousand_models(staff: Client, big: Channel) -> None:
    page = staff.get(f"/admin/setup/prices/?channel={big.pk}").content.decode()
    assert size_of_form(page) < FEW and f"{1200 - MOST_PRICES} more models" in page
    names = [model.pk for model in Model.objects.filter(served_by__channel=big)]
    closed = Model.objects.get(pk=names[0])
    form = {"channel": big.pk, "was_open": str(names[1]), "model_lines": "\n".join(map(str, names[1:]))}
    Model.objects.filter(pk=names[1]).update(is_open=False)  # by somebody else, since the page was read
    assert staff.post("/admin/setup/open/", form).status_code == 302
    assert Model.objects.filter(is_open=True).count() == 1198
    closed.refresh_from_db()
    assert not closed.is_open and not Model.objects.get(pk=names[1]).is_open
    assert AuditEvent.objects.filter(action="model.open").count() == 1198


def test_model_with_many_permissions_and_channels_has_a_small_page(staff: Client) -> None:
    model = Model.objects.create(name="popular")
    users = User.objects.bulk_create(User(username=f"user-{number}") for number in range(300))
    ModelPermission.objects.bulk_create(ModelPermission(model=model, user=user) for user in users)
    channels = Channel.objects.bulk_create(Channel(name=f"channel-{number}") for number in range(300))
    ChannelModel.objects.bulk_create(ChannelModel(model=model, channel=channel) for channel in channels)
    page = staff.get(f"/admin/relay/model/{model.pk}/change/").content.decode()
    assert size_of_form(page) < FEW and f"/admin/relay/modelpermission/?model__id__exact={model.pk}" in page
    ModelPermission.objects.bulk_create(
        ModelPermission(model=one, user=users[0])
        for one in Model.objects.bulk_create(Model(name=f"model-{number}") for number in range(300))
    )
    page = staff.get(f"/admin/accounts/user/{users[0].pk}/change/").content.decode()
    assert size_of_form(page) < FEW and f"/admin/relay/modelpermission/?user__id__exact={users[0].pk}" in page


def test_no_form_of_the_admin_grows_with_the_data(people: People) -> None:
    """Rows on the page of what they belong to come in pages, or are few."""
    request = RequestFactory().get("/admin/")
    request.user = people.staff
    for page in admin.site._registry.values():
        for inline in page.get_inline_instances(request):
            assert isinstance(inline, PagedInline) or (inline.max_num or 100) <= 5, inline
        assert page.list_per_page <= 100 and page.list_max_show_all <= 200, page
        assert len(page.list_editable) <= 4
    assert Token.objects.count() == 0
