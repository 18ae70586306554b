"""Prices in the admin."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.test import Client

from relay.models import Channel, Model, ModelPrice

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
    assert "$2.50 / $10.00" in staff.get("/admin/relay/model/").content.decode()


def test_models_added_to_a_channel_are_priced_where_the_price_is_known(staff: Client) -> None:
    from relay.channels.models import add_models

    channel = Channel.objects.create(name="OpenAI", provider="openai")
    add_models(channel, [("gpt-4o", ""), ("strange", "")])
    assert ModelPrice.objects.get(model__name="gpt-4o").input == Decimal("2.5")
    assert not ModelPrice.objects.filter(model__name="strange").exists()
    assert "no price, so nobody can use it" in staff.get("/admin/").content.decode()
