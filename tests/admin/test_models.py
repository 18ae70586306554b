"""Models in the admin."""

from __future__ import annotations

import pytest

from relay.models import Channel, ChannelModel, Model, ModelPrice
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
