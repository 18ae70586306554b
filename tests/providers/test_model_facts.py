"""What is known of a model without asking for an answer: from its name, and from its entry in a list."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal import limits
from relay.models.catalog import Ability
from relay.providers import model_facts
from relay.providers.model_facts import (
    ABILITIES,
    ModelFacts,
    abilities_of_name,
    facts_of_entry,
    levels_of_name,
    may_chat,
    modalities,
)


@pytest.mark.parametrize(
    ("name", "ability"),
    [
        ("gpt-4o-mini", "chat"),
        ("gpt-4-gizmo-g-2fkFE8rbu", "chat"),
        ("gpt-4-all", "chat"),
        ("deepseek-chat", "chat"),
        ("dall-e-3", "image_generation"),
        ("gpt-image-1", "image_generation"),
        ("black-forest-labs/FLUX.1-schnell", "image_generation"),
        ("text-embedding-3-small", "embeddings"),
        ("BAAI/bge-m3", "embeddings"),
        ("BAAI/bge-reranker-v2-m3", "rerank"),
        ("whisper-1", "transcription"),
        ("gpt-4o-mini-tts", "speech"),
        ("omni-moderation-latest", "moderation"),
        ("gpt-realtime", "realtime"),
    ],
)
def test_names_tell_what_a_model_is_for(name: str, ability: str) -> None:
    assert abilities_of_name(name)[0] == ability
    assert may_chat(name, abilities_of_name(name)) == (ability == "chat")


def test_unknown_names_tell_nothing_and_videos_do_not_chat() -> None:
    assert abilities_of_name("airelays-demo") == () and may_chat("airelays-demo", ())
    for name in ("sora-2", "kling-v2", "suno-v4", "gpt-3.5-turbo-instruct"):
        assert abilities_of_name(name) == () and not may_chat(name, ())


@pytest.mark.parametrize(
    ("entry", "facts"),
    [
        (
            {
                "type": "model",
                "id": "claude-opus-4-7",
                "max_input_tokens": 1_000_000,
                "max_tokens": 128_000,
                "capabilities": {
                    "image_input": {"supported": True},
                    "pdf_input": {"supported": False},
                    "structured_outputs": {"supported": True},
                    "thinking": {"supported": True, "types": {}},
                },
            },
            ModelFacts(1_000_000, 128_000, ("chat", "tools", "vision", "structured_output", "reasoning")),
        ),
        (
            {
                "id": "a/b",
                "context_length": 131072,
                "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
                "supported_parameters": ["tools", "reasoning"],
                "top_provider": {"max_completion_tokens": 16384},
            },
            ModelFacts(131072, 16384, ("chat", "vision", "tools", "reasoning")),
        ),
        ({"id": "m", "max_model_len": 32768}, ModelFacts(32768)),
        ({"id": "g", "context_window": 8192, "max_completion_tokens": 4096}, ModelFacts(8192, 4096)),
        (
            {"id": "x", "max_context_length": 32768, "capabilities": {"completion_chat": True, "vision": True}},
            ModelFacts(32768, None, ("chat", "vision")),
        ),
        (
            {"id": "ours", "context_window": 9000, "max_output_tokens": 900, "abilities": ["chat", "flying"]},
            ModelFacts(9000, 900, ("chat",)),
        ),
        ({"id": "lies", "context_length": -1, "max_output_tokens": 10**30, "abilities": "chat"}, ModelFacts()),
        ({"id": "more", "context_length": 1000, "max_output_tokens": 2000}, ModelFacts(1000)),
        ({"id": "tiny", "max_output_tokens": 1}, ModelFacts()),
    ],
)
def test_entries_of_lists(entry: dict[str, Any], facts: ModelFacts) -> None:
    assert facts_of_entry(entry) == facts


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_MEMBERS = (
    "context_length", "max_output_tokens", "abilities", "architecture", "capabilities", "type", "top_provider",
    "reasoning", "reasoning_levels", "retires_at", "expiration_date",
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(_MEMBERS), _JSON))
def test_no_list_of_an_upstream_breaks_it(entry: dict[str, Any]) -> None:
    facts = facts_of_entry(entry)
    assert set(facts.abilities) <= ABILITIES == set(Ability.values)
    assert facts.context_window is None or facts.context_window > 0


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("gpt-5", "minimal low medium high"),
        ("gpt-5-mini", "minimal low medium high"),
        ("gpt-5.1-codex", "low medium high"),
        ("gpt-5.5", "low medium high xhigh"),
        ("openai/gpt-6.2-sol", "low medium high xhigh max"),
        ("o3", "low medium high"),
        ("claude-opus-4-7", "low medium high xhigh max"),
        ("claude-sonnet-4-20250514", "low medium high"),
        ("gemini-3-pro", "low medium high"),
        ("gpt-5-chat-latest", ""),
        ("qwq-32b", ""),
    ],
)
def test_levels_of_reasoning_are_those_of_the_model(name: str, levels: str) -> None:
    assert levels_of_name(name) == tuple(levels.split())


@pytest.mark.parametrize(
    ("entry", "levels", "day"),
    [
        ({"capabilities": {"effort": {"low": {"supported": True}, "max": {"supported": True}}}}, "low max", None),
        ({"capabilities": {"effort": {"low": {"supported": False}, "max": None}}}, "", None),
        ({"reasoning": {"supported_efforts": ["high", "low", "none", None]}}, "low high", None),
        ({"reasoning_levels": ["max", "minimal", "flying"]}, "minimal max", None),
        ({"retires_at": "2027-03-01T00:00:00Z"}, "", date(2027, 3, 1)),
        ({"retires_at": None, "expiration_date": "2027-03-02"}, "", date(2027, 3, 2)),
        ({"retires_at": "soon", "expiration_date": 20270302}, "", None),
        ({"retires_at": "9999-01-01T00:00:00Z"}, "", None),
        ({"reasoning": "yes", "capabilities": ["effort"], "retires_at": {}}, "", None),
    ],
)
def test_entries_tell_reasoning_levels_and_the_end(entry: dict[str, Any], levels: str, day: date | None) -> None:
    facts = facts_of_entry({"id": "m", **entry})
    assert (facts.reasoning_levels, facts.retires_on) == (tuple(levels.split()), day)


@pytest.mark.parametrize(
    ("abilities", "into", "out"),
    [
        ("chat vision files", "text image file", "text"),
        ("chat audio", "text audio", "text"),
        ("embeddings", "text", "embeddings"),
        ("speech", "text", "audio"),
        ("chat vision image_generation", "text image", "text image"),
    ],
)
def test_abilities_as_what_goes_in_and_comes_out(abilities: str, into: str, out: str) -> None:
    found = modalities(tuple(abilities.split()))
    assert found == {"input_modalities": into.split(), "output_modalities": out.split()}


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "\u202eb", "x" * 161, "", 5, None, ["a"]])
def test_a_name_that_no_channel_can_keep_is_passed_over(name: object) -> None:
    body = json.dumps({"object": "list", "data": [{"id": name}, {"id": "vendor/model:free"}]}).encode()
    assert list(model_facts.listed_models(body) or ()) == ["vendor/model:free"]


def test_a_list_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LISTED_MODELS", 3)
    body = json.dumps({"data": [{"id": f"m{number}"} for number in range(9)]}).encode()
    assert list(model_facts.listed_models(body) or ()) == ["m0", "m1", "m2"]
