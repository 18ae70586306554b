"""Vectors at Google Cloud's Vertex AI, whose models take them in two ways, for clients of OpenAI's API and Gemini's."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.api.gemini.clients import ask as ask_gemini
from tests.api.platforms.vertex_channels import channel_at
from tests.support.peers.clouds import vertex
from tests.support.peers.clouds.google_tokens import TokenEndpoint
from tests.support.portal import Portal
from tests.support.server import Server

KINDS = {"gemini": "gemini-embedding", "predict": "text-multilingual-embedding"}


def model_at(live: Portal, tokens: TokenEndpoint, kind: str) -> str:
    return live.model(
        vertex.embedding(tokens), channels=[channel_at(live, tokens)], upstream_name=live.name(KINDS[kind])
    )


@pytest.mark.parametrize(
    ("kind", "texts", "method", "counted"),
    [
        ("gemini", ["tea", "time"], "batchEmbedContents", 8),
        ("gemini", ["tea"], "embedContent", 4),
        ("predict", ["tea", "time"], "predict", 6),
    ],
)
def test_openais_embeddings(
    live: Portal, cloud: Server, tokens: TokenEndpoint, kind: str, texts: list[str], method: str, counted: int
) -> None:
    model, token = model_at(live, tokens, kind), live.token()
    cloud.catch_up()
    with openai.OpenAI(base_url=f"{cloud.url}/v1", api_key=token, max_retries=0, timeout=20) as sdk:
        raw = sdk.embeddings.with_raw_response.create(model=model, input=texts, dimensions=2)
    found = raw.parse()
    assert [one.embedding for one in found.data] == [[0.5, 0.25]] * len(texts)
    assert found.usage.prompt_tokens == counted
    sent = [call for call in live.upstream.calls if call.path.endswith(f":{method}")][-1]
    assert "/publishers/google/models/" in sent.path
    if kind == "predict":
        assert sent.json["parameters"] == {"outputDimensionality": 2}
    else:
        one: Any = sent.json["requests"][0] if len(texts) > 1 else sent.json
        assert one["embedContentConfig"] == {"outputDimensionality": 2} and "model" not in one
    assert live.record(raw.headers["x-request-id"]).input_tokens == counted


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [False, True])
def test_geminis_own_clients(live: Portal, cloud: Server, tokens: TokenEndpoint, kind: str, batch: bool) -> None:
    model, token = model_at(live, tokens, kind), live.token()
    cloud.catch_up()
    one: dict[str, Any] = {"content": {"parts": [{"text": "tea"}]}, "taskType": "RETRIEVAL_QUERY", "model": "models/x"}
    method = "batchEmbedContents" if batch else "embedContent"
    answer = ask_gemini(cloud, model, token, {"requests": [one, one]} if batch else one, method=method)
    assert answer.status_code == 200, answer.text
    vector = {"values": [0.5, 0.25]}
    shown = answer.json()
    assert shown["embeddings"] == [vector, vector] if batch else shown["embedding"] == vector
    ignored = answer.headers.get("x-airelays-ignored-parameters")
    assert ignored == ("taskType" if kind == "predict" else None)
    if kind == "gemini":
        sent = [call for call in live.upstream.calls if call.path.endswith(f":{method}")][-1].json
        asked = sent["requests"][0] if batch else sent
        assert asked == {"content": one["content"], "embedContentConfig": {"taskType": "RETRIEVAL_QUERY"}}


def test_an_upstream_that_refuses_is_told(live: Portal, cloud: Server, tokens: TokenEndpoint) -> None:
    model, token = model_at(live, tokens, "predict"), live.token()
    cloud.catch_up()
    refused = cloud.post(token, {"model": model, "input": [[1, 2, 3]]}, path="/v1/embeddings")
    assert refused.status_code == 422 and refused.json()["error"]["param"] == "input", refused.text
