"""Answers with errors inside them, at other places than the top."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.protocols.errors import told_plainly
from relay.protocols.passthrough.answers import (
    read_embeddings,
    read_images,
    read_moderation,
    read_rerank,
    read_transcription,
)
from relay.protocols.passthrough.requests import PassthroughRequest
from relay.protocols.usage import Usage

SAID = "failed at http://10.1.2.3:8000/x with key sk-upstream-AAAA0123456789abcd of org-AbCdEf123456"
SECRETS = ("10.1.2.3", "AAAA0123456789", "AbCdEf123456")
ERROR = {"code": "OutputImageSensitiveContentDetected", "message": SAID}
IMAGES = PassthroughRequest(output_limit=500, choices=2, units=Usage(images=2))


def body(**members: Any) -> bytes:
    return json.dumps(members).encode()


@pytest.mark.parametrize(
    "entry",
    [
        {"error": ERROR},
        {"url": "", "error": ERROR},
        {"url": None, "b64_json": None, "error": SAID, "index": 1},
        {"code": "Sensitive", "message": SAID, "object": "image"},
        {"type": "error", "error": {"message": SAID}},
        {"error": ERROR, "index": 1, "revised_prompt": "x", "request_id": "r", "size": "1x1"},
    ],
)
def test_an_entry_that_is_an_error_is_no_image(entry: dict[str, Any]) -> None:
    found = read_images(body(created=1, data=[{"url": "https://x.example/1"}, entry]), IMAGES)
    assert found is not None and found.usage is not None and found.usage.images == 1 and not found.is_error
    assert found.clean is not None
    cleaned = json.loads(found.clean(found.body, told_plainly))
    assert cleaned["data"][0] == {"url": "https://x.example/1"} and "url" not in cleaned["data"][1]
    assert cleaned["data"][1]["error"]["message"].startswith("failed at")
    assert not any(secret in json.dumps(cleaned) for secret in SECRETS)
    alone = read_images(body(created=1, data=[entry]), IMAGES)
    assert alone is not None and alone.is_error and json.loads(alone.body)["error" if "error" in entry else "code"]


@pytest.mark.parametrize(
    "data",
    [["aGk="], ["https://x.example/1"], [{"url": "u"}], [{"b64_json": "aGk=", "error": None}], [{"image": "aGk="}]],
)
def test_what_holds_an_image_under_any_name_is_one(data: list[Any]) -> None:
    found = read_images(body(data=data), IMAGES)
    assert found is not None and found.usage is not None and found.usage.images == 1 and found.clean is None


@pytest.mark.parametrize("data", [[{}], [None], [{"index": 0, "seed": 5}], [{"revised_prompt": "x"}], [""]])
def test_what_holds_no_image_is_no_answer(data: list[Any]) -> None:
    assert read_images(body(data=data), IMAGES) is None


VECTOR = {"object": "embedding", "index": 0, "embedding": [0.5]}


@pytest.mark.parametrize(
    "entry",
    [
        {"index": 1, "error": ERROR},
        {"embedding": None, "error": ERROR},
        {"code": 500, "message": SAID},
        {"error": SAID},
    ],
)
@pytest.mark.parametrize("before", [0, 1, 2])
def test_vectors_are_all_there_or_the_request_failed(entry: dict[str, Any], before: int) -> None:
    asked = PassthroughRequest(inputs=max(1, before), encoding="float")
    found = read_embeddings(body(data=[*[VECTOR] * before, entry], usage={"prompt_tokens": 5}), asked)
    assert found is not None and found.is_error and SAID.encode() in found.body and b"embedding" not in found.body[:12]
    assert read_embeddings(body(data=[VECTOR]), PassthroughRequest(encoding="float")) is not None


@pytest.mark.parametrize("entry", [{"error": ERROR}, {"flagged": False, "error": SAID}, {"code": "x", "message": SAID}])
def test_a_verdict_with_an_error_is_none(entry: dict[str, Any]) -> None:
    found = read_moderation(body(results=[{"flagged": True}, entry]), PassthroughRequest(inputs=2))
    assert found is not None and found.is_error
    healthy = body(results=[{"flagged": True, "error": None, "categories": {"error": False}}])
    found = read_moderation(healthy, PassthroughRequest())
    assert found is not None and not found.is_error


@pytest.mark.parametrize("name", ["results", "data"])
def test_a_rank_with_an_error_is_none(name: str) -> None:
    ranks = [{"index": 0, "relevance_score": 0.5}, {"index": 1, "error": ERROR}]
    found = read_rerank(body(**{name: ranks}), PassthroughRequest(inputs=2))
    assert found is not None and found.is_error
    told = [{"index": 0, "relevance_score": 0.5, "document": {"text": "x", "error": "of a document"}}]
    found = read_rerank(body(results=told), PassthroughRequest())
    assert found is not None and not found.is_error and b"of a document" in found.body


def test_parts_of_a_transcript_that_failed_keep_no_secret() -> None:
    segments = [{"id": 0, "text": "Hello"}, {"id": 1, "text": "", "error": ERROR}]
    found = read_transcription(body(text="Hello", segments=segments), PassthroughRequest())
    assert found is not None and found.clean is not None
    cleaned = found.clean(found.body, told_plainly).decode()
    assert json.loads(cleaned)["segments"][0] == segments[0] and not any(secret in cleaned for secret in SECRETS)
    found = read_transcription(body(text="", segments=segments[1:]), PassthroughRequest())
    assert found is not None and found.is_error
    found = read_transcription(body(text='He said "error".', segments=segments[:1]), PassthroughRequest())
    assert found is not None and found.clean is None


# -- embeddings --------------------------------------------------------------------------------------------------------


def embedding(vector: Any, encoding: str) -> Any:
    """What the client gets for a vector of the upstream; None: the answer is none."""
    found = read_embeddings(
        body(data=[{"object": "embedding", "index": 0, "embedding": vector}]), PassthroughRequest(encoding=encoding)
    )
    return json.loads(found.body)["data"][0]["embedding"] if found is not None else None


TWO = "AACAPwAAAEA="  # 1.0, 2.0


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize("vector", ["AAAAA", "not Base64!", "AACAPwA=", TWO[:-3] + "\u00e9", "=" * 8, [None, None]])
def test_a_vector_that_cannot_be_decoded_is_no_answer(vector: Any, encoding: str) -> None:
    assert embedding(vector, encoding) is None


def test_a_vector_with_what_is_no_number_is_not_encoded() -> None:
    assert embedding("AADAfwAAAEA=", "float") is None  # NaN
    for vector in ([1.0, None], [1.0, "2"], [True, 1.0], [1e300, 1.0]):
        assert embedding(vector, "base64") is None


def test_vectors_that_can_be_decoded() -> None:
    assert embedding(TWO, "float") == [1.0, 2.0] and embedding([1.0, 2.0], "base64") == TWO
    assert embedding(TWO, "base64") == TWO and embedding([1.0, 2.0], "float") == [1.0, 2.0]
    assert embedding(TWO.rstrip("="), "float") == [1.0, 2.0]
    assert embedding([[1.0, 2.0], [3.0, 4.0]], "base64") == [[1.0, 2.0], [3.0, 4.0]]  # several for one text
    escaped = b'{"data":[{"embedding":"\\/\\/9\\/fw=="}]}'  # as PHP writes slashes
    assert read_embeddings(escaped, PassthroughRequest(encoding="base64")) is not None
