"""A channel is given a thousand models or keys at once: one announcement, and no look-up inside the transaction."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import Change
from relay.billing import list_prices, price_import
from relay.channels.models import add_models
from relay.models import ChannelModel, Model, ModelPrice
from tests.support.portal import Portal
from tests.support.sessions import signed_in

pytestmark = pytest.mark.shared


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each price that is looked up, whether a transaction was open."""
    found: list[bool] = []
    real = list_prices.look_up

    def look_up(*arguments: Any) -> Any:
        found.append(connection.in_atomic_block)
        return real(*arguments)

    monkeypatch.setattr(price_import, "look_up", look_up)
    return found


def test_pages_that_add_models_look_prices_up_before_they_write(live: Portal, looked_up: list[bool]) -> None:
    staff = signed_in(live.user(is_staff=True, is_superuser=True))
    start = Change.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    names = [live.name("gpt-4o-mini-2024") for _ in range(30)]
    form = {
        "name": live.name("big"),
        "provider": "openai",
        "base_url": live.upstream.base_url,
        "priority": 0,
        "weight": 1,
        "cost_multiplier": 1,
        "disconnect_policy": "delivered",
        "key_strategy": "random",
        "retry_unanswered": "broken",
        **{f"{prefix}-{name}_FORMS": 0 for prefix in ("keys", "served") for name in ("TOTAL", "INITIAL")},
        "new_models": "\n".join(names),
        "new_keys": "\n".join(f"sk-key-0123456789-{number}" for number in range(30)),
    }
    assert staff.post("/admin/relay/channel/add/", form).status_code == 302
    assert ChannelModel.objects.filter(channel__name=form["name"]).count() == 30
    announced = list(Change.objects.filter(pk__gt=start).values_list("topic", flat=True))
    assert announced.count("catalog") == 1, "one page, one announcement"
    channel = ChannelModel.objects.filter(channel__name=form["name"]).first()
    assert channel is not None
    names = [live.name("o3-mini-2025"), live.name("strange")]
    url = f"/admin/relay/channel/{channel.channel_id}/models/"
    assert staff.post(url, {"name": names}).status_code == 302
    guide = {"channel": channel.channel_id, "typed": live.name("o4-mini")}
    assert staff.post("/admin/setup/models/", guide).status_code == 302
    chosen = {"action": "take_list_prices", "_selected_action": [Model.objects.get(name=names[0]).pk]}
    page = staff.post("/admin/relay/model/", {**chosen, "confirmed": "1", "model": chosen["_selected_action"]})
    assert page.status_code == 302
    assert len(looked_up) == 34 and not any(looked_up)


def test_a_thousand_models_cost_hardly_more_queries_than_two(live: Portal) -> None:
    counts = []
    for many in (2, 450):
        channel = live.channel()
        names = [(live.name("gpt-4o-mini"), "gpt-4o-mini") for _ in range(many)]
        listings = price_import.listings_for("openai", names)
        assert len(listings) == many
        with CaptureQueriesContext(connection) as queries:
            assert add_models(channel, [*names, *names], listings) == many
        counts.append(len(queries))
        assert ModelPrice.objects.filter(model__served_by__channel=channel).count() == many
        assert add_models(channel, names, {}) == 0
    assert counts[1] < 3 * counts[0], counts
