"""What another relay charges, taken as what its channel costs, and kept up to date."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from accounts.models import AuditEvent, User
from relay.models import Channel, ChannelModel, Model, ModelPrice
from tests.support.portal import People, Portal
from tests.support.sessions import clerk, signed_in
from tests.support.upstream import Call, Upstream

pytestmark = pytest.mark.shared


@contextmanager
def saying(upstream: Upstream, answers: dict[str, Any]) -> Iterator[list[str]]:
    """The upstream answers GET requests by their paths, 404 where it has none; the paths that were asked."""
    asked: list[str] = []

    async def listed(call: Call) -> None:
        asked.append(call.path)
        found = answers.get(call.path)
        await call.reply(404 if found is None else 200, found or {"error": {"message": "Not found."}})

    upstream.script("", listed)
    try:
        yield asked
    finally:
        del upstream.scripts[""]


def new_api(ratio: float) -> dict[str, Any]:
    entry = {"model_name": "there", "quota_type": 0, "model_ratio": ratio, "completion_ratio": 2, "enable_groups": []}
    return {"/api/pricing": {"success": True, "data": [entry], "group_ratio": {"default": 1}}}


def costs(channel: Channel) -> list[tuple[Decimal, Decimal, str]]:
    rows = ModelPrice.objects.filter(channel=channel, purpose="cost").order_by("pk")
    return [(row.input.normalize(), row.output.normalize(), row.source) for row in rows]


def tiers(usd: int) -> Any:
    return {"there": {0: {"input": Decimal(usd), "output": Decimal(4)}}, "elsewhere": {0: {"input": Decimal(1)}}}


@pytest.fixture
def channel(db: None) -> Channel:
    found = Channel.objects.create(name="relay", provider="relay", base_url="https://relay.example/v1")
    ChannelModel.objects.create(channel=found, model=Model.objects.create(name="public"), upstream_name="there")
    ChannelModel.objects.create(channel=found, model=Model.objects.create(name="other"))
    return found


def test_prices_are_taken_and_then_kept_up_to_date(channel: Channel) -> None:
    from relay.channels.upstream_prices import SOURCE, take_prices

    assert take_prices(channel, tiers(2)) == (0, 1), "nobody has asked for them yet"
    somebody = User.objects.create_user("somebody")
    assert take_prices(channel, tiers(2), somebody) == (1, 1)
    assert costs(channel) == [(Decimal(2), Decimal(4), SOURCE)]
    event = AuditEvent.objects.get(action="price.import")
    assert event.actor == somebody and event.detail["costs"] == {"input": "2", "output": "4"}
    assert take_prices(channel, tiers(2), somebody) == (0, 1)
    assert take_prices(channel, tiers(3)) == (1, 1), "on a schedule, too"
    assert [row[0] for row in costs(channel)] == [Decimal(2), Decimal(3)]


def test_a_price_that_somebody_typed_stands(channel: Channel) -> None:
    from relay.channels.upstream_prices import take_prices

    model = Model.objects.get(name="public")
    ModelPrice.objects.create(model=model, channel=channel, purpose="cost", input=9, output=9)
    assert take_prices(channel, tiers(1)) == (0, 1)
    assert [row[0] for row in costs(channel)] == [Decimal(9)]


def test_a_relay_is_asked_in_each_form_until_one_answers(live: Portal) -> None:
    from relay.channels.upstream_prices import fetch_prices, refresh_prices, take_prices

    channel = live.channel(provider="relay")
    live.model(channels=[channel], upstream_name="there", price={"input": 5, "output": 5})
    with saying(live.upstream, new_api(1)) as asked:
        assert refresh_prices(channel) == 0 and asked == [], "before they are taken, nobody asks"
        prices = fetch_prices(channel, channel.keys.get())
        assert asked == ["/v1/models", "/api/pricing"]
        assert take_prices(channel, prices, User.objects.first() or live.user()) == (1, 1)
        assert refresh_prices(channel) == 0
    with saying(live.upstream, new_api(0.5)):
        assert refresh_prices(channel) == 1
    assert [row[:2] for row in costs(channel)] == [(Decimal(2), Decimal(4)), (Decimal(1), Decimal(2))]
    with saying(live.upstream, {}):
        assert refresh_prices(channel) == 0 and fetch_prices(channel, channel.keys.get()) == {}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (
            {
                "/v1/dashboard/billing/subscription": {"hard_limit_usd": 3},
                "/v1/dashboard/billing/usage": {"total_usage": 100},
            },
            "2 USD",
        ),
        ({"/v1/usage": {"isValid": True, "remaining": 7.25, "unit": "USD"}}, "7.25 USD"),
        ({"/api/usage/token/": {"data": {"total_available": 500_000, "unlimited_quota": False}}}, "1 USD"),
        ({"/api/user/self": {"data": {"quota": 1_000_000}}}, "2 USD"),
        ({"/key/info": {"info": {"spend": 1, "max_budget": 5}}}, "4 USD"),
        ({"/v1/usage": {"nonsense": 1}}, ""),
    ],
)
def test_its_balance_is_read_where_it_says_it(live: Portal, answers: dict[str, Any], expected: str) -> None:
    from relay.channels.health_checks import refresh_balances

    channel = live.channel(provider="relay")
    with saying(live.upstream, answers):
        assert refresh_balances(channel) == bool(expected)
    key = channel.keys.get()
    assert (f"{key.balance.normalize():f} {key.balance_currency}" if key.balance is not None else "") == expected


def test_who_may_take_prices(channel: Channel, people: People) -> None:
    path = f"/admin/relay/channel/{channel.pk}/prices/"
    for client in (signed_in(people.owner), Client(), clerk("view_channel", "change_channel")):
        assert client.get(path).status_code in {302, 403} and client.post(path).status_code in {302, 403}
    assert costs(channel) == []
    page = html.unescape(signed_in(people.staff).get(path).content.decode())
    assert "Take its prices" in page and "What users pay stays." in page


def test_a_vendor_that_says_nothing(staff: Client) -> None:
    channel = Channel.objects.create(name="plain", provider="openai")
    answer = staff.post(f"/admin/relay/channel/{channel.pk}/prices/", follow=True)
    assert "says in no API what it charges" in html.unescape(answer.content.decode())
