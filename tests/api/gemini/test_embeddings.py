"""Vectors: in Gemini's API at upstreams of it and of OpenAI's, and the other way round."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from google import genai
from google.genai import errors, types

from tests.api.gemini.clients import ask, sdk_at
from tests.support.peers import gemini
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, Script

TEXT: dict[str, Any] = {"content": {"parts": [{"text": "tea"}, {"text": "time"}]}}


@pytest.fixture
def token(live: Portal) -> str:
    return live.token()


@pytest.fixture
def client(server: Server, token: str) -> Iterator[genai.Client]:
    with sdk_at(server.url, token) as made:
        yield made


def model_at(live: Portal, server: Server, script: Script, provider: str = "gemini", **options: Any) -> str:
    model = live.model(script, provider=provider, **options)
    server.catch_up()
    return model


def vectors(*found: list[float], **more: Any) -> Script:
    """An upstream of OpenAI's embeddings, which lists the last one first."""
    data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(found)][::-1]

    async def script(call: Call) -> None:
        assert call.path == "/v1/embeddings"
        await call.reply(200, {"object": "list", "data": data, "model": "up", **more})

    return script


@pytest.mark.parametrize("method", ["embedContent", "batchEmbedContents"])
def test_a_request_names_the_upstreams_model_and_passes_otherwise(
    live: Portal, server: Server, token: str, method: str
) -> None:
    model = model_at(live, server, gemini.saying(), upstream_name="up")
    one = {**TEXT, "model": "models/other", "taskType": "RETRIEVAL_QUERY", "outputDimensionality": 3}
    body = one if method == "embedContent" else {"requests": [one, TEXT]}
    answer = ask(server, model, token, body, method=method)
    assert answer.status_code == 200, answer.text
    sent = live.upstream.last("up")
    assert sent.path == f"/v1/models/up:{method}"
    named = {**one, "model": "models/up"}
    if method == "embedContent":
        assert sent.json == named and answer.json() == {"embedding": {"values": [0.5, -0.25]}}
    else:
        assert sent.json["requests"] == [named, {**TEXT, "model": "models/up"}]
        assert len(answer.json()["embeddings"]) == 2
    record = live.record(answer)
    assert record.usage_source == "estimated" and record.input_tokens > 0


def test_the_sdk_at_both_kinds_of_upstreams(live: Portal, server: Server, client: genai.Client) -> None:
    config = types.EmbedContentConfig(output_dimensionality=2, task_type="RETRIEVAL_QUERY")
    model = model_at(live, server, gemini.saying())
    found = client.models.embed_content(model=model, contents=["a", "b"], config=config).embeddings
    assert found is not None and [one.values for one in found] == [[0.5, 0.0], [0.5, 1.0]]
    usage = {"prompt_tokens": 7, "total_tokens": 7}
    model = model_at(live, server, vectors([1.0, 2.0], [3.0, 4.0], usage=usage), "openai", upstream_name="u")
    found = client.models.embed_content(model=model, contents=["a", "b"], config=config).embeddings
    assert found is not None and [one.values for one in found] == [[1.0, 2.0], [3.0, 4.0]]
    sent = live.upstream.last("u").json
    assert sent == {"model": "u", "input": ["a", "b"], "dimensions": 2, "encoding_format": "float"}


def test_one_text_at_another_upstream(live: Portal, server: Server, token: str) -> None:
    model = model_at(live, server, vectors([1.0, 2.0], usage={"prompt_tokens": 3, "total_tokens": 3}), "openai")
    answer = ask(server, model, token, {**TEXT, "task_type": "RETRIEVAL_QUERY", "title": "x"}, method="embedContent")
    usage = {"promptTokenCount": 3, "totalTokenCount": 3}
    assert answer.json() == {"embedding": {"values": [1.0, 2.0]}, "usageMetadata": usage}
    assert answer.headers["x-airelays-ignored-parameters"] == "taskType,title"
    assert live.upstream.last(model).json["input"] == ["tea\ntime"]
    assert (live.record(answer).input_tokens, live.record(answer).usage_source) == (3, "reported")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "requests"),
        ({"requests": []}, "requests"),
        ({"requests": ["x"]}, "requests"),
        ({"requests": [{"content": {}}]}, "requests[0].content"),
        ({"requests": [{**TEXT, "taskType": "A", "task_type": "B"}]}, "requests[0].taskType"),
        ({"requests": [{"content": {"parts": [{"fileData": {"fileUri": "gs://b/x"}}]}}]},
         "requests[0].content.parts[0].fileData.fileUri"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(live: Portal, server: Server, token: str, body: Any, field: str) -> None:
    model = model_at(live, server, gemini.saying())
    answer = ask(server, model, token, body, method="batchEmbedContents")
    assert answer.status_code == 400 and live.upstream.count(model) == 0
    assert answer.json()["error"]["details"][0]["metadata"]["field"] == field


@pytest.mark.parametrize(
    "request_",
    [
        {"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}]}},
        {**TEXT, "outputDimensionality": 3},
    ],
    ids=["image", "lengths"],
)
def test_what_another_upstream_cannot_be_asked_is_refused(
    live: Portal, server: Server, token: str, request_: dict[str, Any]
) -> None:
    model = model_at(live, server, vectors([1.0]), "openai")
    answer = ask(server, model, token, {"requests": [TEXT, request_]}, method="batchEmbedContents")
    assert answer.status_code == 422 and live.upstream.count(model) == 0


@pytest.mark.parametrize("answer", [{"embeddings": []}, {"embeddings": [{"values": []}]}, {"embeddings": [{}, {}]}])
def test_an_answer_without_a_vector_for_each_text_is_none(
    live: Portal, server: Server, token: str, answer: dict[str, Any]
) -> None:
    async def script(call: Call) -> None:
        await call.reply(200, answer)

    model = model_at(live, server, script)
    for method, body in (("batchEmbedContents", {"requests": [TEXT, TEXT]}), ("embedContent", TEXT)):
        refused = ask(server, model, token, body, method=method)
        assert refused.status_code == 502 and refused.json()["error"]["status"] == "UNAVAILABLE"
    assert server.post(token, {"model": model, "input": ["a", "b"]}, "/v1/embeddings").status_code == 502


def test_an_error_of_the_upstream_is_told_in_its_words(live: Portal, server: Server, client: genai.Client) -> None:
    model = model_at(live, server, gemini.refusing(400, "INVALID_ARGUMENT", "at most 100 requests can be in one batch"))
    with pytest.raises(errors.ClientError, match="at most 100 requests"):
        client.models.embed_content(model=model, contents="a")


# -- clients of OpenAI's embeddings ------------------------------------------------------------------------------------


def test_openais_sdk_at_an_upstream_of_gemini(live: Portal, server: Server, token: str) -> None:
    sdk = openai.OpenAI(base_url=f"{server.url}/v1", api_key=token, max_retries=0, timeout=20)
    model = model_at(live, server, gemini.saying(), upstream_name="gemini-embedding-up")
    raw = sdk.embeddings.with_raw_response.create(model=model, input=["a", "b"], dimensions=2, user="u")
    found = raw.parse()  # in Base64, which it asks for
    assert [one.embedding for one in found.data] == [[0.5, 0.0], [0.5, 1.0]]
    assert found.usage.prompt_tokens > 0 and found.model == model
    assert raw.headers["x-airelays-ignored-parameters"] == "user"
    assert live.record(raw).usage_source == "estimated"
    sent = live.upstream.last("gemini-embedding-up")
    assert sent.path == "/v1/models/gemini-embedding-up:batchEmbedContents"
    assert sent.json["requests"][1] == {
        "model": "models/gemini-embedding-up",
        "content": {"parts": [{"text": "b"}]},
        "outputDimensionality": 2,
    }
    plain = server.post(token, {"model": model, "input": "a"}, "/v1/embeddings").json()
    assert plain["data"][0]["embedding"] == [0.5, 0]
    packed = server.post(token, {"model": model, "input": "a", "encoding_format": "base64"}, "/v1/embeddings").json()
    assert base64.b64decode(packed["data"][0]["embedding"]) == struct.pack("<2f", 0.5, 0)


def test_token_numbers_are_refused_by_name(live: Portal, server: Server, token: str) -> None:
    model = model_at(live, server, gemini.saying())
    answer = server.post(token, {"model": model, "input": [1, 2, 3]}, "/v1/embeddings")
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "input")
    assert live.upstream.count(model) == 0


def test_the_reported_tokens_are_charged(live: Portal, server: Server, token: str) -> None:
    async def script(call: Call) -> None:
        usage = {"promptTokenCount": 12, "totalTokenCount": 12}
        await call.reply(200, {"embeddings": [{"values": [1, 2]}], "usageMetadata": usage})

    model = model_at(live, server, script)
    answer = server.post(token, {"model": model, "input": "a"}, "/v1/embeddings")
    assert answer.json()["usage"] == {"prompt_tokens": 12, "total_tokens": 12}
    assert (live.record(answer).input_tokens, live.record(answer).usage_source) == (12, "reported")
