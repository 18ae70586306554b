"""Prices in words: what costs something is never shown as nothing."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from portal.lib import clock
from relay.catalog.price_texts import PriceNow, price_words, prices_now, unpriced_words
from relay.models import Channel, ChannelModel, Model, ModelPrice
from relay.models.price import CLASSES, UNIT_CLASSES
from tests.support.portal import People
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ({"input": "2.5", "output": 10}, "$2.50 in, $10.00 out per 1M tokens"),
        ({"input": 0, "output": 0}, "free"),
        ({"input": 0, "output": 0, "per_call": "0.05"}, "$0.05 per call"),
        ({"input": 0, "output": 0, "per_image": "0.04", "per_call": "0.001"}, "$0.001 per call, $0.04 per image"),
        ({"input": 1, "output": 2, "per_second": "0.0001"}, "$1.00 in, $2.00 out per 1M tokens; $0.0001 per second"),
        ({"input": "0.000000001", "output": 0}, "$0.000000001 in, $0.00 out per 1M tokens"),
        ({"input": "1.125", "output": "1234.5"}, "$1.125 in, $1,234.50 out per 1M tokens"),
    ],
)
def test_words(classes: dict[str, Any], words: str) -> None:
    assert price_words({name: Decimal(value) for name, value in classes.items()}) == words


@given(
    st.dictionaries(st.sampled_from(CLASSES), st.decimals(0, 999_999_999, places=9), min_size=1), st.decimals(0, 100)
)
def test_free_is_said_of_what_is_free_alone(classes: dict[str, Decimal], factor: Decimal) -> None:
    classes = {"input": Decimal(0), "output": Decimal(0), **classes}
    words = price_words(classes, factor, every=True)
    assert (words == "free") == (not any(classes.values()) or not factor)


def test_unpriced_models_cost_what_the_setting_says() -> None:
    assert "cannot be used" in unpriced_words("refuse")
    assert unpriced_words("free") == "free" and unpriced_words("5/15") == "$5.00 in, $15.00 out per 1M tokens"
    assert PriceNow().words(unpriced="5/15") == unpriced_words("5/15")


@pytest.fixture
def models(db: None) -> dict[str, Model]:
    """Models priced in every way, on a channel that serves them."""
    channel = Channel.objects.create(name="c", provider="ollama")
    prices: dict[str, list[dict[str, Any]]] = {
        "by-token": [{"input": 2, "output": 8}],
        "by-call": [{"input": 0, "output": 0, "per_call": "0.05"}],
        "by-image": [{"input": 0, "output": 0, "per_image": "0.04"}],
        "no-charge": [{"input": 0, "output": 0}],
        "tiered": [{"input": 1, "output": 4}, {"input": 2, "output": 8, "above_tokens": 200_000}],
        "later": [{"input": 1, "output": 1, "valid_from": clock.now() + timedelta(days=1)}],
        "by-channel": [{"input": 3, "output": 3, "channel": channel}],
        "dearer-here": [
            {"input": 1, "output": 10},
            {"input": 7, "output": 70, "channel": channel},
            {"input": 9, "output": 90, "above_tokens": 100, "channel": channel},
        ],
        "in-two-places": [
            {"input": 1, "output": 10, "per_call": "0.01"},
            {"input": 7, "output": 10, "channel": channel},
        ],
        "reserved-elsewhere": [{"input": 1, "output": 10}],
    }
    found, at = {}, clock.now()
    for name, rows in prices.items():
        found[name] = Model.objects.create(name=name, is_open=True)
        ChannelModel.objects.create(channel=channel, model=found[name])
        for row in rows:
            ModelPrice.objects.create(model=found[name], **{"valid_from": at, **row})
    other = Channel.objects.create(name="d", provider="ollama")
    ChannelModel.objects.create(channel=other, model=found["in-two-places"])
    closed = Channel.objects.create(name="e", provider="ollama", groups_limited=True)
    keyless = Channel.objects.create(name="f", provider="openai")
    for place in (closed, keyless):
        ChannelModel.objects.create(channel=place, model=found["reserved-elsewhere"])
        ModelPrice.objects.create(model=found["reserved-elsewhere"], channel=place, input=55, output=55, valid_from=at)
    ModelPrice.objects.create(model=found["by-call"], input=9, output=9, valid_from=at - timedelta(days=1))
    return found


SAID = {
    "by-token": ["$2.00", "$8.00"],
    "by-call": ["$0.05 per call"],
    "by-image": ["$0.04 per image"],
    "no-charge": ["free"],
    "tiered": ["$1.00", "$4.00", "above 200,000 tokens: $2.00 in, $8.00 out per 1M tokens"],
    "later": ["no price yet"],
    "by-channel": ["$3.00"],
    "dearer-here": ["$7.00", "$70.00", "above 100 tokens: $9.00 in, $90.00 out per 1M tokens"],
    "in-two-places": ["$1.00–$7.00", "$10.00", "$0.00–$0.01 per call; depending on the channel"],
}


def test_prices_of_many_models_take_two_queries(models: dict[str, Model], django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(2):
        found = prices_now([model.pk for model in models.values()], clock.now())
    for name, said in SAID.items():
        words = found[models[name].pk].words()
        assert all(word in words for word in said), (name, words)
    assert not found[models["later"].pk].known and found[models["by-channel"].pk].known


@pytest.mark.parametrize("url", ["/catalog/", "/admin/relay/model/", "/admin/setup/prices/"])
def test_every_page_with_prices_says_the_same(models: dict[str, Model], people: People, url: str) -> None:
    client: Client = signed_in(people.staff)
    if "setup" in url:
        url += f"?channel={Channel.objects.get(name='c').pk}"
    page = client.get(url).content.decode()
    for name, said in SAID.items():
        row = next(part for part in page.split("<tr") if name in part)
        if name == "later" and "setup" in url:
            said = ["<input"]
        assert all(word in row for word in said), (name, row)
        assert "$0.00" not in row.replace("$0.00–", ""), name
    if url == "/catalog/":
        row = next(part for part in page.split("<tr") if "reserved-elsewhere" in part)
        assert "$1.00" in row and "$55.00" not in row, "of a channel that this user cannot use, or that has no key"


def test_the_list_of_prices_shows_units(models: dict[str, Model], staff: Client) -> None:
    page = staff.get("/admin/relay/modelprice/").content.decode()
    assert "$0.05 per call" in page and "$0.04 per image" in page
    assert len(UNIT_CLASSES) == 5


def test_users_see_the_price_of_their_group(models: dict[str, Model], people: People) -> None:
    from django.contrib.auth.models import Group

    from accounts.models import GroupSettings

    group = Group.objects.create(name="half")
    GroupSettings.objects.update_or_create(group=group, defaults={"price_multiplier": "0.5"})
    people.owner.groups.add(group)
    page = signed_in(people.owner).get("/catalog/").content.decode()
    assert "$1.00" in page and "$0.025 per call" in page and "times 0.5" in page
    assert "$0.025" not in signed_in(people.other).get("/catalog/").content.decode()
