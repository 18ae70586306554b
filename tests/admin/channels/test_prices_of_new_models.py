"""Who adds models can finish: list prices are taken without the right to prices, and nothing else about prices is."""

from __future__ import annotations

import html
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.test import Client

from accounts.models import AuditEvent, User
from relay.billing import price_import
from relay.billing.list_prices import ListedPrice, Listing
from relay.channels.probe import ModelList
from relay.models import Channel, ChannelModel, Model, ModelPrice
from tests.support.portal import People
from tests.support.sessions import signed_in, with_config

pytestmark = pytest.mark.shared

LISTED = "gpt-4o"  # as the vendor's list calls it


def person(role: str, name: str = "") -> Client:
    user = User.objects.create_user(name or f"a-{role}".lower().replace(" ", "-"), is_staff=True)
    user.groups.set(Group.objects.filter(name=role))
    return signed_in(user)


def take(browser: Client, *models: Model, **form: Any) -> str:
    chosen = {"action": "take_list_prices", "_selected_action": [model.pk for model in models], **form}
    return html.unescape(browser.post("/admin/relay/model/", chosen, follow=True).content.decode())


def served(*names: str) -> list[Model]:
    channel = Channel.objects.create(name="Mine", provider="openai")
    models = [Model.objects.create(name=name, is_open=True) for name in names]
    for model in models:
        ChannelModel.objects.create(channel=channel, model=model)
    return models


def test_an_operator_takes_list_prices_for_models_without_one(people: People) -> None:
    listed, unknown = served(LISTED, "my-own-model")
    person("Accountant", "anna")
    browser = person("Operator")
    page = take(browser, listed, unknown)
    assert f'value="{listed.pk}" checked' in page and "my-own-model" in page
    assert "anna" in page and "by hand" not in page, "it says whom to ask for the other one"
    take(browser, listed, unknown, confirmed="1", model=[listed.pk, unknown.pk])
    assert listed.prices.get().input > 0 and not unknown.prices.exists()
    event = AuditEvent.objects.get(action="price.import")
    assert (event.actor_name, event.ip) == ("a-operator", "127.0.0.1")


def test_an_operator_changes_no_price_and_puts_none_on_what_is_free(people: People, settings: Any) -> None:
    listed, later, free = served(LISTED, "gpt-4o-mini", "gpt-4.1")
    ModelPrice.objects.create(model=listed, input=99, output=99)
    ModelPrice.objects.create(model=later, input=99, output=99, valid_from="2099-01-01T00:00:00Z")
    browser = person("Operator")
    before = set(ModelPrice.objects.values_list("pk", flat=True))

    def try_all() -> None:
        everything = [model.pk for model in (listed, later, free)]
        page = take(browser, listed, later, free, confirmed="1", model=everything)
        assert "403" not in page
        chosen = {"action": "make_free", "_selected_action": everything}
        assert browser.post("/admin/relay/model/", chosen).status_code in {302, 403}
        for path in ("add/", f"{min(before)}/new-version/", f"{min(before)}/change/"):
            assert browser.post(f"/admin/relay/modelprice/{path}", {"input": 1, "output": 1}).status_code == 403

    with_config(settings, unpriced="free")
    try_all()
    assert set(ModelPrice.objects.values_list("pk", flat=True)) == before, "models are sold without a price"
    with_config(settings, unpriced="refuse")
    try_all()
    new = ModelPrice.objects.exclude(pk__in=before)
    assert {row.model for row in new} == {free} and new.get().input > 0
    offered = browser.get("/admin/relay/model/").content.decode()
    assert "make_free" not in offered and "take_list_prices" in offered


@pytest.mark.parametrize("role", ["Support", "plain staff", "Accountant"])
def test_others_take_no_list_prices(people: People, role: str) -> None:
    """Those who may not change models: an accountant sets prices on their own page."""
    (listed,) = served(LISTED)
    take(person(role), listed, confirmed="1", model=[listed.pk])
    assert not listed.prices.exists()


def test_a_list_price_that_needs_judgement_is_left_to_those_who_set_prices(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that names input alone: output would be free."""
    half = ListedPrice(0, {"input": Decimal(1), "output": Decimal(0)}, frozenset(("output",)))
    monkeypatch.setattr(price_import, "look_up", lambda *_: Listing("openai", "half", (half,)))
    (model,) = served("half-listed")
    page = take(person("Operator"), model)
    assert f'value="{model.pk}" checked' not in page and "A price can be set by" in page
    take(person("Operator", "second"), model, confirmed="1", model=[model.pk])
    assert not model.prices.exists()
    take(person("Owner"), model, confirmed="1", model=[model.pk])
    assert model.prices.exists()


def test_the_guide_says_whom_to_ask_to_those_whose_steps_end_before_prices(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.admin.channels.guide.views.list_models", lambda _request, _channel: ModelList(()))
    channel = Channel.objects.create(name="Mine", provider="openai")
    for role, said in (("Operator", True), ("Owner", False)):
        form = {"channel": channel.pk, "typed": f"own-model-of-{role}"}
        browser = person(role)
        browser.post(f"/admin/setup/models/?channel={channel.pk}", form)
        page = html.unescape(browser.get("/admin/").content.decode())
        assert ("No list price of a vendor was found" in page) == said, role


def test_an_owner_sees_all_differences(people: People) -> None:
    listed, _own = served(LISTED, "my-own-model")
    ModelPrice.objects.create(model=listed, input=99, output=99)
    page = take(person("Owner"), listed, _own)
    assert f'value="{listed.pk}" checked' in page and "Add a price by hand" in page


def test_the_front_page_says_to_each_what_they_can_do(people: People) -> None:
    served("my-own-model")
    person("Accountant", "anna")
    pages = {
        role: html.unescape(person(role).get("/admin/").content.decode()) for role in ("Owner", "Operator", "Support")
    }
    assert "Add one, or take" in pages["Owner"] and "anna" not in pages["Owner"]
    assert "Take the vendors' list prices, or ask: a-owner, anna" in pages["Operator"]
    assert "A price can be set by: a-owner, anna" in pages["Support"]


def test_adding_a_channel_to_a_model_that_is_sold_without_a_price_leaves_it_so(people: People, settings: Any) -> None:
    (model,) = served(LISTED)
    with_config(settings, unpriced="free")
    second = Channel.objects.create(name="Second", provider="openai")
    browser = person("Operator")
    page = browser.get(f"/admin/relay/channel/{second.pk}/change/")
    assert page.status_code == 200
    from relay.billing.price_import import listings_for

    assert listings_for("openai", [(LISTED, "")]) == {}
    assert set(listings_for("openai", [("gpt-4o-mini", "")])) == {"gpt-4o-mini"}, "a new name gets its list price"
    assert not model.prices.exists()
