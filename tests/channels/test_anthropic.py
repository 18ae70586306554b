"""Channels whose upstream speaks Anthropic's API: their test, and their list of models."""

from __future__ import annotations

import pytest

from relay.channels.probe import fetch_models, probe_channel
from relay.providers.failures import FailureClass
from tests.support.peers import messages
from tests.support.portal import Portal
from tests.support.upstream import Call


@pytest.mark.parametrize("streamed", [False, True])
def test_a_channel_is_tested_with_a_message(live: Portal, streamed: bool) -> None:
    channel = live.channel(provider="anthropic")
    model = live.model(messages.saying(), channels=[channel])
    result = probe_channel(channel, channel.keys.get(), model, streamed)
    assert result.ok and (result.first_token_ms is not None) == streamed
    sent = live.upstream.last(model)
    assert sent.path == "/v1/messages" and sent.headers["anthropic-version"] == "2023-06-01"
    assert sent.headers["x-api-key"].startswith("sk-") and "authorization" not in sent.headers


def test_why_a_test_fails_is_told(live: Portal) -> None:
    async def script(call: Call) -> None:
        await messages.refuse(call, 401, "authentication_error", "invalid x-api-key")

    channel = live.channel(provider="anthropic")
    result = probe_channel(channel, channel.keys.get(), live.model(script, channels=[channel]))
    assert not result.ok and result.failure is not None and result.failure.kind is FailureClass.KEY_DEAD


def test_models_are_fetched_with_what_is_known_of_them(live: Portal) -> None:
    channel = live.channel(provider="anthropic")
    listed = fetch_models(channel, channel.keys.get())
    assert listed.names == ("mock-large", "mock-small") and not listed.error
    asked = [call for call in live.upstream.calls if call.path == "/v1/models?limit=1000"][-1]
    assert asked.headers["anthropic-version"] and asked.headers["x-api-key"]
