"""A response that goes on from an earlier one."""

from __future__ import annotations

import openai
import pytest
from openai import OpenAI

from tests.endpoints.text.responses_upstream import Upstream
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call

pytestmark = pytest.mark.shared


def test_the_next_turn_goes_where_the_first_one_is_known(sdk: OpenAI, live: Portal, server: Server) -> None:
    upstream = Upstream()
    channels = [live.channel() for _ in range(4)]
    model = live.model(upstream, channels=channels)
    server.catch_up()
    first = sdk.responses.with_raw_response.create(model=model, input="one")
    for _ in range(4):
        second = sdk.responses.with_raw_response.create(model=model, input="two", previous_response_id=first.parse().id)
        assert second.headers["x-relay-channel"] == first.headers["x-relay-channel"]
    assert upstream.asked[-1]["previous_response_id"] == first.parse().id and upstream.asked[-1]["input"] == "two"


def test_the_next_turn_is_told_everything_where_the_first_one_is_not_known(
    sdk: OpenAI, live: Portal, server: Server
) -> None:
    from relay.models import Channel

    upstream = Upstream()
    channels = [live.channel(), live.channel()]
    model = live.model(upstream, channels=channels)
    server.catch_up()
    first = sdk.responses.with_raw_response.create(model=model, input="one", store=True)
    channel = Channel.objects.get(pk=first.headers["x-relay-channel"])
    channel.enabled = False
    channel.save()
    server.catch_up()
    second = sdk.responses.create(model=model, input="two", previous_response_id=first.parse().id)
    assert second.previous_response_id == first.parse().id and second.model_dump()["store"] is True
    sent = upstream.asked[-1]
    assert "previous_response_id" not in sent and [item["role"] for item in sent["input"]] == [
        "user",
        "assistant",
        "user",
    ]
    assert sent["input"][1]["content"][0]["text"] == "answer 1" and not any("id" in item for item in sent["input"])


def test_an_upstream_that_has_forgotten_is_told_everything(sdk: OpenAI, native: tuple[str, Upstream]) -> None:
    model, upstream = native
    first = sdk.responses.create(model=model, input="one")
    upstream.forgets = True
    assert sdk.responses.create(model=model, input="two", previous_response_id=first.id).output_text == "answer 3"
    assert len(upstream.asked[-1]["input"]) == 3


def test_an_upstream_that_refuses_the_next_turn_for_another_reason_is_asked_once(
    sdk: OpenAI, live: Portal, server: Server
) -> None:
    upstream = Upstream()

    async def script(call: Call) -> None:
        if call.json.get("previous_response_id"):
            upstream.asked.append(call.json)
            await call.error(400, "The input is too long.", "context_length_exceeded")
        else:
            await upstream(call)

    model = live.model(script)
    server.catch_up()
    first = sdk.responses.create(model=model, input="one")
    with pytest.raises(openai.BadRequestError):
        sdk.responses.create(model=model, input="two", previous_response_id=first.id)
    assert len(upstream.asked) == 2
