"""What is known of models is filled in, follows the lists of upstreams, and never undoes what staff have set."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from django.test import Client

from portal.lib import clock
from relay.catalog.facts import fill_facts, fill_facts_of
from relay.models import Channel, ChannelModel, Model
from relay.providers.model_facts import ModelFacts
from tests.support.portal import Portal
from tests.support.sessions import signed_in
from tests.support.upstream import Call, Upstream

pytestmark = pytest.mark.shared

FACTS = ModelFacts(200_000, 32_000, ("chat", "vision", "reasoning"), ("low", "high"), date(2027, 3, 1))


def facts(name: str) -> tuple[Any, ...]:
    row = Model.objects.get(name=name)
    return row.context_window, row.max_output_tokens, row.abilities, row.reasoning_levels, row.retires_on


def test_lists_are_followed_but_for_what_staff_have_set(db: None) -> None:
    model = Model.objects.create(name="mine")
    assert fill_facts(["mine"], {"mine": FACTS}) == 1
    assert facts("mine") == (200_000, 32_000, ["chat", "vision", "reasoning"], ["low", "high"], date(2027, 3, 1))
    assert fill_facts(["mine"], {"mine": FACTS}) == 0, "nothing is new"
    model.refresh_from_db()
    model.context_window, model.abilities = 100_000, ["chat"]
    model.save()
    later = ModelFacts(400_000, 64_000, ("chat",), ("low", "max"), date(2027, 6, 1))
    assert fill_facts(["mine"], {"mine": later}) == 1
    assert facts("mine") == (100_000, 64_000, ["chat"], ["low", "max"], date(2027, 6, 1))
    assert fill_facts(["mine"], {"mine": ModelFacts()}) == 0, "a list that says nothing takes nothing away"
    Model.objects.filter(name="mine").update(retires_on=date(2028, 1, 1), max_output_tokens=None)
    assert fill_facts(["mine"], {"mine": FACTS}) == 1
    assert facts("mine") == (100_000, 32_000, ["chat"], ["low", "high"], date(2028, 1, 1)), "what was emptied is filled"


def test_guesses_give_way_to_lists_and_never_the_other_way(db: None) -> None:
    Model.objects.create(name="gpt-4o-mini")
    fill_facts(["gpt-4o-mini"])
    window, _limit, abilities, *_rest = facts("gpt-4o-mini")
    assert window == 128_000 and "chat" in abilities, "of genai-prices, and of its name"
    fill_facts(["gpt-4o-mini"], {"gpt-4o-mini": ModelFacts(64_000, None, ("chat", "files"))})
    assert facts("gpt-4o-mini")[:3] == (64_000, None, ["chat", "files"])
    fill_facts(["gpt-4o-mini"])
    assert facts("gpt-4o-mini")[:3] == (64_000, None, ["chat", "files"])


def test_a_channels_list_is_read_by_its_own_names(db: None) -> None:
    channel = Channel.objects.create(name="one", provider="openai")
    for name, upstream in (("public", "theirs"), ("same", ""), ("elsewhere", "gone")):
        ChannelModel.objects.create(channel=channel, model=Model.objects.create(name=name), upstream_name=upstream)
    Model.objects.create(name="theirs")
    assert fill_facts_of(channel, {"theirs": FACTS, "same": ModelFacts(1000), "more": FACTS}) == 2
    assert facts("public")[0] == 200_000 and facts("same")[0] == 1000
    assert facts("elsewhere")[0] is None and facts("theirs")[0] is None


def test_fetching_models_tells_what_is_known_of_them(live: Portal, second: Upstream) -> None:
    """Also of those that the channel has already."""
    entry: dict[str, Any] = {"id": "claude-x-1", "object": "model"}

    async def listing(call: Call) -> None:
        await call.reply(200, {"object": "list", "data": [entry]})

    second.script("", listing)
    boss = signed_in(live.user(is_staff=True, is_superuser=True))
    channel = live.channel(second.base_url)
    path = f"/admin/relay/channel/{channel.pk}/models/"
    assert boss.post(path, {"name": "claude-x-1"}).status_code == 302
    assert facts("claude-x-1") == (None, None, ["chat"], [], None), "what its name tells"
    entry |= {
        "type": "model",
        "max_input_tokens": 500_000,
        "max_tokens": 64_000,
        "retires_at": "2027-03-01T00:00:00Z",
        "capabilities": {
            "image_input": {"supported": True},
            "thinking": {"supported": True},
            "effort": {"supported": True, "low": {"supported": True}, "max": {"supported": True}},
        },
    }
    answer = boss.post(path, {}, follow=True).content.decode()
    assert "What the list says of 1 model was filled in." in answer
    assert facts("claude-x-1") == (
        500_000,
        64_000,
        ["chat", "tools", "vision", "reasoning"],
        ["low", "max"],
        date(2027, 3, 1),
    )


def test_staff_are_told_of_models_that_are_taken_out_of_service(staff: Client) -> None:
    today = clock.now().date()
    for name, days in (("soon", 29), ("past", -1), ("later", 31), ("off", 1)):
        Model.objects.create(name=name, retires_on=today + timedelta(days=days), enabled=name != "off")
    front = staff.get("/admin/").content.decode()
    assert "“past”, “soon”: taken out of service by the vendor, or soon." in front
    listed = staff.get("/admin/relay/model/?state=retiring").content.decode()
    assert ">soon<" in listed and ">past<" in listed and ">later<" not in listed and ">off<" not in listed
