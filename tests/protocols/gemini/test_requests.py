"""What the portal reads of a generateContent request, and the body that is sent on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.protocols.fields import BadRequest
from relay.protocols.gemini.counting import counted_request, upstream_count_body
from relay.protocols.gemini.models import model_entry, model_list
from relay.protocols.gemini.request import parse_gemini_request
from tests.protocols.gemini.frames import TEXT, parsed

IMAGE = {"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}


def test_what_is_asked_for_is_read_in_either_spelling() -> None:
    for config, limit, count in (
        ("generationConfig", "maxOutputTokens", "candidateCount"),
        ("generation_config", "max_output_tokens", "candidate_count"),
    ):
        found = parsed({**TEXT, config: {limit: 7, count: 2, "thinkingConfig": {"thinkingBudget": 99}}})
        assert (found.output_limit, found.choices, found.thinking()) == (7, 2, 99)
    found = parsed(TEXT)
    assert (found.output_limit, found.choices, found.thinking()) == (None, 1, None)


def test_the_body_is_the_clients_own_until_something_must_change() -> None:
    raw = b'{ "contents": [{"parts": [{"text": "x"}]}], "unknown": {"a": 1.0}, "generation_config": {"top_k": 1} }'
    found = parse_gemini_request(raw, "m", False, False)
    assert found.upstream_body(None) is found.body and found.body == raw
    clamped = json.loads(found.upstream_body(5))
    assert clamped["generation_config"] == {"top_k": 1, "maxOutputTokens": 5} and clamped["unknown"] == {"a": 1.0}


@pytest.mark.parametrize(("asked", "told"), [(3, 3), (9, 5), (None, 5)])
def test_a_limit_is_lowered_and_never_raised(asked: int | None, told: int) -> None:
    config = {} if asked is None else {"max_output_tokens": asked}
    body = json.loads(parsed({**TEXT, "generationConfig": config}).upstream_body(5))
    assert list(body["generationConfig"].values()) == [told]


def test_data_counts_by_its_kind_and_not_as_text() -> None:
    audio = {"inline_data": {"mime_type": "audio/wav", "data": "A" * 4000}}
    found = parsed({"contents": [{"parts": [IMAGE, audio, {"text": "x"}]}]})
    assert [(file.size, file.content_type) for file in found.files] == [(9, "image/png"), (3000, "audio/wav")]
    assert b"AAAA" not in found.own_text and b'"x"' in found.own_text
    assert found.content.images == 1 and found.content.media and not found.content.unbounded


def test_what_may_add_to_the_input_leaves_it_unbounded() -> None:
    assert parsed(TEXT).at_most(9) == 9
    assert (parsed(TEXT).most_input() or 0) > len(json.dumps(TEXT))
    file = {"fileData": {"fileUri": "https://example.com/a.pdf"}}
    adding: list[dict[str, Any]] = [
        {"contents": [{"parts": [file]}]},
        {"contents": [{"parts": [{"somethingNew": {}}]}]},
        {**TEXT, "tools": [{"googleSearch": {}}]},
        {**TEXT, "somethingNew": 1},
    ]
    for body in adding:
        assert parsed(body).at_most(9) is None and parsed(body).most_input() is None, body
    tools = [{"functionDeclarations": [{"name": "f"}]}]
    assert parsed({**TEXT, "tools": tools}).at_most(9) == 9


def test_what_the_model_is_told_for_certain_is_not_what_it_said() -> None:
    said = {"role": "model", "parts": [{"text": "word " * 100}]}
    told = {"role": "user", "parts": [{"text": "word " * 100}]}
    assert parsed({"contents": [said, told]}).least_input(1e9) == parsed({"contents": [told]}).least_input(1e9) > 50


@pytest.mark.parametrize("contents", [None, [], "x", 1])
def test_contents_are_demanded(contents: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        parsed({"contents": contents})
    assert caught.value.param == "contents"


def test_one_content_alone_is_a_list_of_one() -> None:
    assert not parsed({"contents": {"parts": {"text": "x"}}}).content.unbounded


# -- counting, lists ---------------------------------------------------------------------------------------------------


def test_a_whole_request_is_counted_as_one() -> None:
    whole = json.dumps({"generateContentRequest": {"model": "models/x", **TEXT, "tools": []}}).encode()
    assert json.loads(counted_request(whole)) == {**TEXT, "tools": []}
    sent = json.loads(upstream_count_body(whole, "up"))
    assert sent["generateContentRequest"] == {"model": "models/up", **TEXT, "tools": []}
    plain = json.dumps(TEXT).encode()
    assert counted_request(plain) == upstream_count_body(plain, "up") == plain


def test_models_are_on_pages() -> None:
    models: list[Any] = [{"id": f"m{number}", "abilities": ["chat", "reasoning"]} for number in range(5)]
    first: dict[str, Any] = model_list(models, {"pageSize": "2"})
    assert [one["name"] for one in first["models"]] == ["models/m0", "models/m1"]
    last: dict[str, Any] = model_list(models, {"pageSize": "2", "pageToken": "4"})
    assert len(last["models"]) == 1 and "nextPageToken" not in last
    assert first["nextPageToken"] == "2"
    with pytest.raises(BadRequest):
        model_list(models, {"pageToken": "x"})
    embeds = model_entry({"id": "e", "abilities": ["embeddings"], "context_window": 9})
    assert (
        embeds["supportedGenerationMethods"] == ["embedContent", "batchEmbedContents"]
        and embeds["inputTokenLimit"] == 9
    )
