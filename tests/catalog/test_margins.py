"""Prices below what upstreams charge, as the ledger would find at the first request."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Group

from accounts.models import GroupSettings
from portal.lib import clock
from relay.catalog.margins import Margin, below_cost, margins
from relay.models import Channel, ChannelModel, Model, ModelPrice
from tests.support.portal import People
from tests.support.sessions import clerk, signed_in

pytestmark = pytest.mark.shared
BEGAN = clock.now() - timedelta(days=1)


def served(name: str = "m", channel: str = "c", **options: Any) -> tuple[Model, Channel]:
    model, _made = Model.objects.get_or_create(name=name)
    upstream, _made = Channel.objects.get_or_create(name=channel, provider="openai", defaults=options)
    ChannelModel.objects.create(model=model, channel=upstream)
    return model, upstream


def priced(model: Model, channel: Channel | None = None, purpose: str = "sale", **classes: Any) -> ModelPrice:
    classes = {"input": 1, "output": 2, "valid_from": BEGAN, **classes}
    return ModelPrice.objects.create(model=model, channel=channel, purpose=purpose, **classes)


def factor() -> Decimal:
    return margins(clock.now())[0].factor


def test_discount_of_the_upstream(db: None) -> None:
    model, _channel = served(cost_multiplier=Decimal("0.7"))
    assert margins(clock.now()) == [], "without a price nothing is sold"
    priced(model)
    assert factor() == Decimal("0.7")
    found = margins(clock.now())
    assert not below_cost(found) and not below_cost(found, Decimal("0.7"))
    assert below_cost(found, Decimal("0.5")) == found == below_cost(found, Decimal(0))


def test_what_an_upstream_charges_is_compared_class_by_class(db: None) -> None:
    model, channel = served(cost_multiplier=Decimal(50))
    priced(model)
    cost = priced(model, channel, "cost", input=1, output=1)
    assert factor() == 1, "what is said exactly is not multiplied"
    for classes, most in (
        ({"output": 3}, Decimal("1.5")),
        ({"reasoning": 5}, Decimal("2.5")),  # sold as output
        ({"cached_input": 9}, 9),
        ({"per_call": Decimal("0.01")}, Decimal("Infinity")),  # sold for nothing
    ):
        for name, value in classes.items():
            setattr(cost, name, value)
        cost.save()
        assert factor() == most, classes


def test_prices_of_a_channel_longer_prompts_and_versions(db: None) -> None:
    model, channel = served()
    priced(model, valid_from=BEGAN - timedelta(days=9), input=Decimal("0.001"), output=Decimal("0.001"))
    priced(model)
    assert factor() == 1
    priced(model, channel, input=2, output=4)
    assert factor() == Decimal("0.5")
    priced(model, channel, above_tokens=1000, input=2, output=1)
    assert factor() == 2, "above 1000 tokens"
    priced(model, channel, valid_from=clock.now() + timedelta(days=1), input=0, output=0)
    assert factor() == 2, "to come"
    assert margins(clock.now() + timedelta(days=2))[0].factor == Decimal("Infinity")


def test_free_on_both_sides_is_no_loss(db: None) -> None:
    model, _channel = served()
    priced(model, input=0, output=0)
    assert factor() == 0 and not below_cost(margins(clock.now()))


def test_what_is_off_or_kept_for_others_does_not_count(db: None) -> None:
    model, channel = served(cost_multiplier=Decimal(3))
    priced(model)
    mine, others = (Group.objects.create(name=name) for name in ("mine", "others"))
    channel.groups_limited = True
    channel.save()
    found = margins(clock.now())
    assert found[0].groups == frozenset() and not below_cost(found, group=mine.pk)
    channel.groups.add(others)
    found = margins(clock.now())
    assert not below_cost(found, group=mine.pk) and below_cost(found, group=others.pk) == found
    channel.enabled = False
    channel.save()
    assert margins(clock.now()) == []


def test_a_fixed_number_of_queries(db: None, django_assert_num_queries: Any) -> None:
    for number in range(12):
        priced(served(f"m{number}", f"c{number % 3}")[0])
    with django_assert_num_queries(4):
        assert len(margins(clock.now())) == 12


def test_group_is_warned_about_when_saved_and_in_the_list(people: People) -> None:
    model, _channel = served(cost_multiplier=Decimal("0.7"))
    priced(model)
    group = Group.objects.create(name="gold")
    GroupSettings.objects.create(group=group, price_multiplier=Decimal("0.5"))
    staff = signed_in(people.staff)
    assert "below cost" in staff.get("/admin/auth/group/").content.decode()
    form = {
        "name": "gold",
        "settings-TOTAL_FORMS": 1,
        "settings-INITIAL_FORMS": 1,
        "settings-0-id": GroupSettings.objects.get().pk,
        "settings-0-group": group.pk,
        "settings-0-price_multiplier": "0.6",
    }
    saved = staff.post(f"/admin/auth/group/{group.pk}/change/", form, follow=True).content.decode()
    assert (
        "users pay less than the upstream charges for 1 model" in saved and "up to 0.7 times the price for m" in saved
    )
    form["settings-0-price_multiplier"] = "0.7"
    saved = staff.post(f"/admin/auth/group/{group.pk}/change/", form, follow=True).content.decode()
    assert "users pay less" not in saved and "below cost" not in saved


def test_price_is_warned_about_when_saved_and_in_the_list(people: People) -> None:
    model, channel = served()
    priced(model)
    staff = signed_in(people.staff)
    assert "below cost" not in staff.get("/admin/relay/modelprice/").content.decode()
    form = {
        "model": model.pk,
        "purpose": "cost",
        "channel": channel.pk,
        "valid_from_0": BEGAN.strftime("%Y-%m-%d"),
        "valid_from_1": BEGAN.strftime("%H:%M:%S"),
        "above_tokens": 0,
        "input": 4,
        "output": 2,
    }
    saved = staff.post("/admin/relay/modelprice/add/", form, follow=True).content.decode()
    assert "users pay less than the upstream charges" in saved and "up to 4 times the price for m" in saved
    assert saved.count("below cost") == 2, "the price and the cost"
    reader = clerk("view_modelprice", "add_modelprice")
    seen = reader.get("/admin/relay/modelprice/").content.decode()
    assert "below cost" not in seen, "who may not see what is earned"
    form["input"], form["valid_from_1"] = 5, clock.now().strftime("%H:%M:%S")
    form["valid_from_0"] = clock.now().strftime("%Y-%m-%d")
    assert "users pay less" not in reader.post("/admin/relay/modelprice/add/", form, follow=True).content.decode()


def test_largest_margin_of_several_is_the_example() -> None:
    one = Margin(1, 1, "a", "c", False, None, Decimal(2))
    assert below_cost([one, Margin(2, 1, "b", "c", False, frozenset({3}), Decimal(1))], group=4) == [one]
