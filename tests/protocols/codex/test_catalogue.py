"""The catalogue of models that Codex reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.protocols.codex.catalogue import catalogue, is_known

# Members without a default in `ModelInfo` of openai/codex, between 0.99 and 0.171: a catalogue that lacks one is passed
# over as a whole.
REQUIRED = {
    "slug", "display_name", "description", "supported_reasoning_levels", "shell_type", "visibility",
    "supported_in_api", "priority", "availability_nux", "upgrade", "base_instructions", "supports_reasoning_summaries",
    "support_verbosity", "default_verbosity", "apply_patch_tool_type", "truncation_policy",
    "supports_parallel_tool_calls", "experimental_supported_tools",
}  # fmt: skip


def entries(*models: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(catalogue(models))["models"]
    return found


def test_a_model_is_told_with_all_that_is_known_of_it() -> None:
    (one,) = entries(
        {
            "id": "m",
            "context_window": 200_000,
            "abilities": ["chat", "vision", "reasoning"],
            "reasoning_levels": ["low", "medium", "high", "a level of the future"],
        }
    )
    assert set(one) >= REQUIRED
    assert (one["slug"], one["context_window"], one["input_modalities"]) == ("m", 200_000, ["text", "image"])
    assert [level["effort"] for level in one["supported_reasoning_levels"]] == ["low", "medium", "high"]
    assert all(level["description"] for level in one["supported_reasoning_levels"])
    assert one["default_reasoning_level"] == "medium" and one["supports_reasoning_summaries"] is True
    assert one["base_instructions"].strip()


def test_what_is_not_known_is_not_made_up() -> None:
    (one,) = entries({"id": "m"})
    assert set(one) >= REQUIRED
    assert not {"context_window", "max_context_window", "default_reasoning_level", "input_modalities"} & set(one)
    assert one["supported_reasoning_levels"] == [] and one["supports_reasoning_summaries"] is False


def test_only_models_that_chat_are_in_it_and_each_has_its_place() -> None:
    found = entries({"id": "a"}, {"id": "b", "abilities": ["embeddings"]}, {"id": "c", "abilities": ["chat"]})
    assert [(one["slug"], one["priority"]) for one in found] == [("a", 1), ("c", 2)]
    assert found[1]["input_modalities"] == ["text"]
    assert json.loads(catalogue([])) == {"models": []}


def test_it_is_never_longer_than_codex_reads() -> None:
    body = catalogue([{"id": f"model-{number}"} for number in range(2000)])
    assert 900_000 < len(body) <= 1024 * 1024
    assert len(json.loads(body)["models"]) > 250


@pytest.mark.parametrize(
    ("found", "known"), [("", False), ('"x"', False), ("*", True), ("{tag}", True), ('"x", W/{tag}', True)]
)
def test_a_tag_is_known_again(found: str, known: bool) -> None:
    tag = '"0123"'
    assert is_known(found.format(tag=tag), tag) is known
