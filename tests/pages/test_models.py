"""The page of models."""

from __future__ import annotations

from decimal import Decimal

import pytest

from relay.models import Channel, ChannelModel, Model, ModelPrice
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


def test_models_show_their_price(people: People) -> None:
    model = Model.objects.create(name="priced-model", is_open=True)
    ChannelModel.objects.create(model=model, channel=Channel.objects.create(name="c", provider="openai"))
    ModelPrice.objects.create(model=model, input=Decimal("2.5"), output=10)
    assert "$2.50" in signed_in(people.owner).get("/catalog/").content.decode()
