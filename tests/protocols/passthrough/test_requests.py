"""Requests of pass-through endpoints, as far as they decide about price and limits."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from portal.lib.json import encode
from relay.protocols.passthrough.requests import entries, parse_embeddings, parse_moderations, parse_rerank

URL = "https://x.example/1"


@pytest.mark.parametrize(
    ("inputs", "tokens", "unbounded"),
    [
        ("text", 2, False),
        (["text", "text"], 4, False),
        ([{"text": "text"}], 1, False),
        ([{"image": URL}, {"type": "image_url", "image_url": {"url": URL}}], 1600, False),
        ([{"text": "text", "image": "A" * 10_000}], 801, False),
        ([{"title": "words " * 1000}], 1500, False),  # Cohere ranks documents by any of their members
        ([{"video": URL}], 800, True),
        ([{"image": URL, "pdf": URL}], 800, True),
        ([{"content": [{"type": "video_url", "video_url": URL}]}], 800, True),  # Voyage
    ],
)
def test_inputs_count_by_what_they_are(inputs: Any, tokens: int, unbounded: bool) -> None:
    for parsed in (parse_embeddings({"input": inputs}), parse_moderations({"input": inputs})):
        assert tokens <= parsed.prompt_tokens <= 1.02 * tokens and parsed.unbounded is unbounded
    if isinstance(inputs, list):
        ranked = parse_rerank({"query": "x", "documents": inputs})
        assert tokens < ranked.prompt_tokens and ranked.unbounded is unbounded


@pytest.mark.parametrize(("value", "number"), [(None, 0), ([], 0), (URL, 1), ([{"image_url": URL}] * 16, 16)])
def test_pictures_that_are_to_be_edited_are_counted(value: Any, number: int) -> None:
    assert entries(Raw(encode(value))) == number and entries(None) == 0
