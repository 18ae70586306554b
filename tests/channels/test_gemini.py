"""Channels whose upstream speaks Gemini's API: their test, and their list of models."""

from __future__ import annotations

import pytest

from relay.channels.probe import fetch_models, probe_channel
from relay.providers.failures import FailureClass
from tests.support.peers import gemini
from tests.support.portal import Portal


@pytest.mark.parametrize("streamed", [False, True])
def test_a_channel_is_tested_with_a_content(live: Portal, streamed: bool) -> None:
    channel = live.channel(provider="gemini")
    model = live.model(gemini.saying(), channels=[channel])
    result = probe_channel(channel, channel.keys.get(), model, streamed)
    assert result.ok and (result.first_token_ms is not None) == streamed
    sent = live.upstream.last(model)
    method = "streamGenerateContent?alt=sse" if streamed else "generateContent"
    assert sent.path == f"/v1/models/{model}:{method}"
    assert sent.headers["x-goog-api-key"].startswith("sk-") and "authorization" not in sent.headers


def test_why_a_test_fails_is_told(live: Portal) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    script = gemini.refusing(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", info)
    channel = live.channel(provider="gemini")
    result = probe_channel(channel, channel.keys.get(), live.model(script, channels=[channel]))
    assert not result.ok and result.failure is not None and result.failure.kind is FailureClass.KEY_DEAD


def test_models_are_fetched_with_what_is_known_of_them(live: Portal) -> None:
    channel = live.channel(provider="gemini")
    listed = fetch_models(channel, channel.keys.get())
    assert listed.names == ("gemini-embedding-001", "gemini-mock") and not listed.error
    facts = listed.facts["gemini-mock"]
    assert (facts.context_window, facts.max_output_tokens) == (1048576, 65536) and "reasoning" in facts.abilities
    assert listed.facts["gemini-embedding-001"].abilities == ("embeddings",)
    asked = [call for call in live.upstream.calls if call.path == "/v1/models?pageSize=1000"][-1]
    assert asked.headers["x-goog-api-key"]
