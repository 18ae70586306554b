"""Prices in the admin."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from django.test import Client

from relay.billing.price_import import listings_for
from relay.models import Channel, ChannelModel, Model, ModelPrice

pytestmark = pytest.mark.shared


def test_prices_in_force_cannot_be_changed_but_followed(staff: Client) -> None:
    model = Model.objects.create(name="priced")
    row = ModelPrice.objects.create(model=model, input=Decimal("2.5"), output=10)
    assert staff.post(f"/admin/relay/modelprice/{row.pk}/change/", {"input": 1}).status_code == 403
    assert staff.post(f"/admin/relay/modelprice/{row.pk}/delete/", {"post": "yes"}).status_code == 403
    staff.post("/admin/relay/modelprice/", {"action": "delete_selected", "_selected_action": row.pk, "post": "yes"})
    assert ModelPrice.objects.filter(pk=row.pk).exists()
    follow = staff.get(f"/admin/relay/modelprice/{row.pk}/new-version/", follow=True).content.decode()
    assert 'value="2.5"' in follow
    form = {
        "model": model.pk,
        "purpose": "sale",
        "channel": "",
        "valid_from_0": "2099-01-01",
        "valid_from_1": "00:00",
        "above_tokens": 0,
        "input": 3,
        "output": 12,
        "source": "",
    }
    assert staff.post("/admin/relay/modelprice/add/", form).status_code == 302
    later = ModelPrice.objects.get(model=model, input=3)
    assert staff.post(f"/admin/relay/modelprice/{later.pk}/change/", {**form, "input": 4}).status_code == 302
    page = staff.get("/admin/relay/modelprice/?q=priced").content.decode()
    assert "in force" in page and "to come" in page
    wrong = staff.post("/admin/relay/modelprice/add/", {**form, "input": -1})
    assert wrong.status_code == 200 and "greater than or equal to 0" in wrong.content.decode()
    assert (
        staff.post(
            "/admin/relay/modelprice/add/", {**form, "above_tokens": 5, "valid_from_0": "2099-02-01"}
        ).status_code
        == 200
    ), "a tier needs its base"


def test_an_empty_price_is_not_zero(staff: Client) -> None:
    model = Model.objects.create(name="priced")
    page = staff.get("/admin/relay/modelprice/add/").content.decode()
    assert page.count('name="input"') == 1 and not re.search(r'name="(in|out)put"[^>]*value="0', page)
    form = {
        "model": model.pk,
        "purpose": "sale",
        "channel": "",
        "valid_from_0": "2020-01-01",
        "valid_from_1": "00:00",
        "above_tokens": 0,
        "input": 3,
        "source": "",
    }
    for wrong in (form, {**form, "output": ""}):
        assert staff.post("/admin/relay/modelprice/add/", wrong).status_code == 200 and not model.prices.exists()
    assert staff.post("/admin/relay/modelprice/add/", {**form, "output": 0}).status_code == 302
    assert model.prices.get().output == 0, "a typed zero is a price"


def test_the_guide_takes_no_empty_price_for_zero(staff: Client) -> None:
    channel = Channel.objects.create(name="Mine", provider="openai")
    model, other = Model.objects.create(name="my-own"), Model.objects.create(name="another")
    for one in (model, other):
        ChannelModel.objects.create(channel=channel, model=one)
    url = f"/admin/setup/prices/?channel={channel.pk}"
    typed = {
        "channel": channel.pk,
        f"input-{model.pk}": "1.25",
        f"output-{model.pk}": "",
        f"input-{other.pk}": "x",
        f"output-{other.pk}": "2",
    }
    page = staff.post(url, typed)
    text = page.content.decode()
    assert page.status_code == 200 and not ModelPrice.objects.filter(model__in=[model, other]).exists()
    assert 'value="1.25"' in text and 'value="x"' in text and 'value="2"' in text, "what was typed stays"
    assert f'id="output-{model.pk}-error">Type a price, too; 0 if it is free.<' in text
    assert f'id="input-{other.pk}-error">Type amounts such as 2.50.<' in text and text.count('-error">') == 2
    page = staff.post(url, {"channel": channel.pk, f"input-{model.pk}": "1", f"output-{model.pk}": "0"})
    assert page.status_code == 200 and "1 model has no price" in page.content.decode(), "the other one still has none"
    assert (model.prices.get().input, model.prices.get().output, other.prices.exists()) == (1, 0, False)


def test_a_list_without_an_output_price_is_shown_as_one_before_it_is_taken(staff: Client) -> None:
    embedding = Model.objects.create(name="text-embedding-3-small")  # genai-prices lists its input alone
    channel = Channel.objects.create(name="Mine", provider="openai")
    ChannelModel.objects.create(channel=channel, model=embedding)
    guide = staff.get(f"/admin/setup/prices/?channel={channel.pk}").content.decode()
    assert f'name="input-{embedding.pk}" value="0.02"' in guide and f'name="output-{embedding.pk}" value=""' in guide
    chosen = {"action": "take_list_prices", "_selected_action": [embedding.pk]}
    page = staff.post("/admin/relay/model/", chosen).content.decode()
    assert "output: — → $0 (the list has no price for it)" in page
    staff.post("/admin/relay/model/", {**chosen, "confirmed": "1", "model": [embedding.pk]})
    assert embedding.prices.get().output == 0


def test_list_prices_are_taken_after_being_shown(staff: Client) -> None:
    models = [Model.objects.create(name=name) for name in ("gpt-4o", "gpt-5-mini", "unknown-model")]
    chosen = {"action": "take_list_prices", "_selected_action": [model.pk for model in models]}
    page = staff.post("/admin/relay/model/", chosen).content.decode()
    assert (
        "input: — → $2.5" in page
        and "unknown-model" in page
        and not ModelPrice.objects.filter(model__in=models).exists()
    )
    staff.post("/admin/relay/model/", {**chosen, "confirmed": "1", "model": [models[0].pk]})
    assert list(ModelPrice.objects.filter(model__in=models).values_list("model__name", flat=True)) == ["gpt-4o"]
    assert "$2.50 in, $10.00 out per 1M tokens" in staff.get("/admin/relay/model/").content.decode()


def test_models_added_to_a_channel_are_priced_where_the_price_is_known(staff: Client) -> None:
    from relay.channels.models import add_models

    channel = Channel.objects.create(name="OpenAI", provider="openai")
    names = [("gpt-4o", ""), ("strange", "")]
    add_models(channel, names, listings_for(channel.provider, names))
    assert ModelPrice.objects.get(model__name="gpt-4o").input == Decimal("2.5")
    assert not ModelPrice.objects.filter(model__name="strange").exists()
    assert "no price, so nobody can use it" in staff.get("/admin/").content.decode()


def test_price_that_would_never_apply_is_refused(staff: Client) -> None:
    model = Model.objects.create(name="m")
    ModelPrice.objects.create(model=model, input=1, output=2)
    form = {
        "model": model.pk,
        "purpose": "sale",
        "valid_from_0": "2020-01-01",
        "valid_from_1": "10:00",
        "above_tokens": "0",
        "input": "3",
        "output": "4",
    }
    page = staff.post("/admin/relay/modelprice/add/", form)
    assert page.status_code == 200 and "would never apply" in page.content.decode()
    assert ModelPrice.objects.count() == 1
    assert staff.post("/admin/relay/modelprice/add/", {**form, "valid_from_0": "2099-01-01"}).status_code == 302
