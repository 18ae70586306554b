"""Vectors that upstreams make in their own APIs: just those that were asked for, and counted whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.protocols.cohere_chat.vectors import CohereVectors
from relay.protocols.fields import BadRequest
from relay.protocols.gemini.embedding.upstream import GeminiVectors, PredictVectors
from relay.protocols.vectors import VectorUpstream

VECTOR = [0.25, 0.5]


def of_cohere(number: int) -> dict[str, Any]:
    return {"embeddings": {"float": [VECTOR] * number}, "meta": {"billed_units": {"input_tokens": 4}}}


def of_gemini(number: int) -> dict[str, Any]:
    return {"embeddings": [{"values": VECTOR}] * number}


def predicted(*counts: int | None) -> dict[str, Any]:
    told = [{} if tokens is None else {"statistics": {"token_count": tokens}} for tokens in counts]
    return {"predictions": [{"embeddings": {"values": VECTOR, **one}} for one in told]}


@pytest.mark.parametrize(
    ("upstream", "answers"),
    [
        (CohereVectors(), [of_cohere(number) for number in (1, 2, 3)]),
        (GeminiVectors(), [of_gemini(number) for number in (1, 2, 3)]),
        (PredictVectors(), [predicted(*[4] * number) for number in (1, 2, 3)]),
    ],
)
def test_neither_fewer_vectors_than_texts_nor_more_are_an_answer(
    upstream: VectorUpstream, answers: list[dict[str, Any]]
) -> None:
    few, right, many = (upstream.read(json.dumps(answer).encode(), 2) for answer in answers)
    assert few is None and many is None
    assert right is not None and right.vectors == [VECTOR, VECTOR]


@pytest.mark.parametrize(("counts", "expected"), [((4, 5), 9), ((4, None), None), ((4, 0), None), ((4, -3), None)])
def test_a_text_without_a_count_leaves_the_whole_to_an_estimate(
    counts: tuple[int | None, ...], expected: int | None
) -> None:
    found = PredictVectors().read(json.dumps(predicted(*counts)).encode(), len(counts))
    assert found is not None and (found.usage.input if found.usage is not None else None) == expected


@pytest.mark.parametrize("upstream", [CohereVectors(), GeminiVectors(), PredictVectors()])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [1, 2]}, "input"),
        ({"input": [{"image": "data:image/png;base64,AAAA"}]}, "input"),
        ({"input": "a", "images": ["data:image/png;base64,AAAA"]}, "images"),
        ({"input": "a", "inputs": [{"content": []}]}, "inputs"),
    ],
)
def test_what_is_no_text_is_refused_by_name(upstream: VectorUpstream, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        upstream.request(fields, "m")
    assert (refused.value.param, refused.value.status) == (param, 422)


def test_the_model_of_pictures_is_sent_texts_as_it_takes_them() -> None:
    asked = PredictVectors().request({"input": ["a", "b"], "dimensions": 128}, "multimodalembedding@001")
    assert asked.body == {"instances": [{"text": "a"}, {"text": "b"}], "parameters": {"dimension": 128}}
    body = json.dumps({"predictions": [{"textEmbedding": VECTOR}, {"textEmbedding": VECTOR}]}).encode()
    found = PredictVectors().read(body, 2)
    assert found is not None and (found.vectors, found.usage) == ([VECTOR, VECTOR], None)
    assert PredictVectors().read(b'{"predictions":[{"imageEmbedding":[1]}]}', 1) is None
