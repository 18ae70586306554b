"""Objects of the portal's account at Google, other models, and answers that say nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.protocols.fields import BadRequest
from relay.protocols.gemini.answer import Framing, parse_gemini_answer
from relay.protocols.gemini.counting import counted_request, upstream_count_body
from relay.protocols.gemini.request import parse_gemini_request
from relay.protocols.gemini.stream import GeminiStream
from relay.protocols.gemini.upstream import GeminiUpstream, gemini_request
from relay.providers import parameters
from tests.protocols.gemini.frames import GEMINI, TEXT, USAGE, chat_codec, frame, parsed, sse

UPLOADED = "https://generativelanguage.googleapis.com/v1beta/files/abc-123"
NOTHING = {**USAGE, "candidatesTokenCount": 0, "thoughtsTokenCount": 0}


def part(**members: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [members]}]}


@pytest.mark.parametrize(
    "body",
    [
        part(fileData={"fileUri": UPLOADED}),
        part(file_data={"file_uri": "gs://bucket/a.pdf"}),
        part(fileData={"fileUri": "https://example.com/a.pdf"}, file_data={"fileUri": "files/abc"}),
        part(fileData={"fileUri": "https://example.com/a.pdf", "file_uri": " GS://bucket/a"}),
        part(functionResponse={"name": "f", "response": {}, "parts": [{"fileData": {"fileUri": UPLOADED}}]}),
        {**TEXT, "system_instruction": {"parts": [{"fileData": {"fileUri": UPLOADED}}]}},
        {**TEXT, "cachedContent": "cachedContents/abc"},
        {**TEXT, "cached_content": "cachedContents/abc"},
        {**TEXT, "tools": [{"fileSearch": {"fileSearchStoreNames": ["fileSearchStores/a"]}}]},
        {**TEXT, "tools": [{"retrieval": {"vertexAiSearch": {"datastore": "projects/p/dataStores/d"}}}]},
        {**TEXT, "tools": [{"retrieval": {"vertex_rag_store": {"rag_resources": [{"rag_corpus": "c"}]}}}]},
        {**TEXT, "tools": [{"googleMaps": {"authConfig": {"apiKeyConfig": {"apiKeySecret": "projects/p/secrets/s"}}}}]},
        {**TEXT, "modelArmorConfig": {"promptTemplateName": "projects/p/templates/t"}},
    ],
)
def test_objects_of_the_account_are_refused(body: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match=r"of the portal's account at the upstream|has no price here") as caught:
        parsed(body)
    assert caught.value.param


def test_what_is_the_clients_own_is_not() -> None:
    own = {"fileUri": UPLOADED, "serviceAccount": "x", "cachedContent": "x"}
    called = {"functionCall": {"name": "f", "args": own}}
    answered = {"functionResponse": {"name": "f", "response": own}}
    schema = {
        "type": "OBJECT",
        "properties": {"serviceAccount": {"type": "STRING"}, "cachedContent": {"type": "STRING"}},
    }
    tools = [{"functionDeclarations": [{"name": "f", "parameters": schema}]}]
    for body in (part(**called), part(**answered), {**TEXT, "tools": tools}):
        assert parsed(body).model == "m"
    public = ("https://example.com/files/a.pdf", "https://storage.googleapis.com/b/files/a", "https://youtu.be/x")
    assert [parsed(part(fileData={"fileUri": uri})).model for uri in public] == ["m"] * 3


@pytest.mark.parametrize("url", ["gs://bucket/a.png", UPLOADED, "files/abc"])
@pytest.mark.parametrize("kind", ["image_url", "video_url"])
def test_a_client_of_another_api_cannot_name_them_as_addresses(kind: str, url: str) -> None:
    message = {"role": "user", "content": [{"type": kind, kind: {"url": url}}]}
    with pytest.raises(BadRequest, match="of the portal's account at the upstream"):
        gemini_request({"model": "gemini-3", "messages": [message]}, GEMINI)


def test_a_model_is_named_by_the_path_alone() -> None:
    found = parsed({**TEXT, "model": "models/other"})
    assert json.loads(found.upstream_body(None)) == TEXT and json.loads(found.upstream_body(5))["contents"]
    counted = json.dumps({**TEXT, "model": "models/other"}).encode()
    assert json.loads(upstream_count_body(counted, "m")) == TEXT
    both = json.dumps({"generateContentRequest": TEXT, **part(fileData={"fileUri": UPLOADED})}).encode()
    with pytest.raises(BadRequest, match="alone"):
        counted_request(both)


@pytest.mark.parametrize("config", ["generationConfig", "generation_config"])
@pytest.mark.parametrize("name", ["routingConfig", "routing_config", "modelSelectionConfig"])
def test_a_choice_among_models_is_left_out_and_stays_out(config: str, name: str) -> None:
    inner = {"temperature": 1, name: {"manualMode": {"modelName": "dear"}}}
    request = parse_gemini_request(json.dumps({**TEXT, config: inner}).encode(), "m", False, False)
    policy = parameters.policy_of({}, {}, "generate_content")
    fields, dropped = parameters.apply(policy, request.fields)
    assert dropped == [f"{config}.{name}"]
    assert json.loads(request.upstream_body(None, fields))[config] == {"temperature": 1}
    assert json.loads(request.upstream_body(9, fields))[config] == {"temperature": 1, "maxOutputTokens": 9}


EMPTY: list[dict[str, Any]] = [
    {"candidates": [], "usageMetadata": NOTHING},
    {"candidates": [{"finishReason": "STOP", "index": 0}], "usageMetadata": NOTHING},
    {"candidates": [{"content": {"role": "model"}, "finishReason": "STOP"}]},
    {"candidates": [{"content": {"parts": []}, "finishReason": "STOP"}], "usageMetadata": NOTHING},
    {"candidates": [{"content": {"parts": [{"text": ""}]}, "finishReason": "STOP"}], "usageMetadata": NOTHING},
]


@pytest.mark.parametrize("answer", EMPTY)
def test_an_answer_that_says_nothing_is_none(answer: dict[str, Any]) -> None:
    body = json.dumps(answer).encode()
    assert parse_gemini_answer(body) is None
    found = GeminiUpstream().completion(body, GEMINI)
    assert found is None or found.error is not None
    for codec in (GeminiStream(Framing(sse=True)), chat_codec()):
        out = codec.feed(sse(answer)) + codec.finish()
        assert not codec.complete and not codec.started, out


def test_a_piece_that_says_nothing_does_not_begin_an_answer() -> None:
    blank, end = frame({"text": ""}), frame(finish="STOP", usageMetadata=NOTHING)
    codec = GeminiStream(Framing(sse=True))
    codec.feed(sse(blank))
    assert not codec.started
    codec.feed(sse(end))
    codec.finish()
    assert codec.error is not None and not codec.started
    signed = frame({"text": "", "thoughtSignature": "c2ln"}, finish="STOP", usageMetadata=NOTHING)
    codec = GeminiStream(Framing(sse=True))
    codec.feed(sse(signed))
    codec.finish()
    assert codec.complete and codec.error is None


@pytest.mark.parametrize(
    "answer",
    [
        frame({"text": "x"}, finish="STOP", usageMetadata=NOTHING),
        {"candidates": [{"finishReason": "STOP", "index": 0}], "usageMetadata": USAGE},
        {"candidates": [{"finishReason": "MAX_TOKENS", "index": 0}], "usageMetadata": NOTHING},
        {"candidates": [{"finishReason": "SAFETY", "index": 0}], "usageMetadata": NOTHING},
        {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": NOTHING},
    ],
)
def test_an_answer_that_was_made_or_cut_or_blocked_is_one(answer: dict[str, Any]) -> None:
    body = json.dumps(answer).encode()
    assert parse_gemini_answer(body) is not None
    found = GeminiUpstream().completion(body, GEMINI)
    assert found is not None and found.error is None
    for codec in (GeminiStream(Framing(sse=True)), chat_codec()):
        codec.feed(sse(answer))
        codec.finish()
        assert codec.complete
