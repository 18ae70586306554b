"""Models in the admin, and the set-up guide that leads to them when something is typed wrongly."""

from __future__ import annotations

import pytest
from django.test import Client

from relay.models import AllowedUpstream, ApiKey, Channel, ChannelModel, Model, ModelPrice
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


def test_gpts_are_added_by_link_and_take_the_terms_of_their_family(people: People) -> None:
    channel = Channel.objects.create(name="pool", provider="relay")
    family = Model.objects.create(name="gpt-4-gizmo-*")
    ModelPrice.objects.create(model=family, input=3, output=9)
    ChannelModel.objects.create(channel=channel, model=family)
    form = {
        "link": "https://chatgpt.com/g/g-2fkFE8rbu-dall-e",
        "name": "Painter",
        "channels": [channel.pk],
        "is_open": "on",
    }
    assert signed_in(people.staff).post("/admin/relay/model/gpt/", form, follow=True).status_code == 200
    model = Model.objects.get(name="gpt-4-gizmo-g-2fkFE8rbu")
    assert model.is_open and model.prices.get().output == 9 and model.served_by.get().channel == channel
    wrong = signed_in(people.staff).post(
        "/admin/relay/model/gpt/", {**form, "link": "https://example.org/x"}, follow=True
    )
    assert "no link to a GPT" in wrong.content.decode()


@pytest.fixture
def channel(db: None) -> Channel:
    AllowedUpstream.objects.create(address="127.0.0.1")
    return Channel.objects.create(name="Mine", provider="relay", base_url="http://127.0.0.1:9/v1")


@pytest.mark.parametrize(
    "wrong", ['"sk-0123456789abcdef"', "sk-0123456789abcdef,", "https://api.openai.com/v1", "sk 0123", "sk-schlüssel"]
)
def test_a_line_that_is_no_key_is_named_and_nothing_of_it_shown(staff: Client, channel: Channel, wrong: str) -> None:
    url = f"/admin/setup/keys/?channel={channel.pk}"
    page = staff.post(url, {"channel": channel.pk, "keys": f"sk-good-0123456789abcdef\n\n  {wrong}\n"})
    text = page.content.decode()
    assert page.status_code == 200 and "Line 3 is no key" in text and "sk-good-0123" not in text
    assert not ApiKey.objects.filter(channel=channel).exists()
    assert staff.post(url, {"channel": channel.pk, "keys": "sk-good-0123456789abcdef\n"}).status_code == 302


def test_a_name_that_is_no_models_is_refused_and_what_was_typed_stays(staff: Client, channel: Channel) -> None:
    url = f"/admin/setup/models/?channel={channel.pk}"
    for wrong in ("my model", "x" * 121):
        page = staff.post(url, {"channel": channel.pk, "typed": f"good-one\n{wrong}\n"})
        text = page.content.decode()
        assert page.status_code == 200 and "is not a model name. Write one a line." in text
        assert f"good-one\n{wrong}" in text and not Model.objects.filter(name="good-one").exists()
    assert "Tick or type at least one model." in staff.post(url, {"channel": channel.pk}).content.decode()
    assert staff.post(url, {"channel": channel.pk, "typed": "good-one\n\n"}).status_code == 302
    assert channel.models.get().name == "good-one"


def test_a_wrong_base_url_can_be_put_right_from_the_guide(staff: Client, channel: Channel) -> None:
    link = f'href="/admin/relay/channel/{channel.pk}/change/"'
    assert link in staff.get(f"/admin/setup/channel/?channel={channel.pk}").content.decode()
    assert link in staff.get(f"/admin/setup/models/?channel={channel.pk}").content.decode(), "it does not answer"
    Channel.objects.filter(pk=channel.pk).update(test_ok=False, test_message="Check the base URL")
    staff.post("/admin/setup/test/", {"channel": channel.pk})
    assert link in staff.get(f"/admin/setup/test/?channel={channel.pk}").content.decode()
    refused = staff.post("/admin/setup/channel/", {"provider": "relay", "name": "x", "base_url": "http://10.0.0.1/v1"})
    assert 'href="/admin/relay/allowedupstream/"' in refused.content.decode()
