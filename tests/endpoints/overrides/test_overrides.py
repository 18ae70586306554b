"""Overrides of channels on every endpoint: what the upstream is sent, and what the client is told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import OpenAI

from tests.endpoints.overrides.anything import anything
from tests.support.peers import gemini, messages
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, hello

REMOVE: dict[str, Any] = {"do": "remove", "path": "temperature"}
MANY: list[dict[str, Any]] = [
    REMOVE,
    {"do": "set", "path": "reasoning_effort", "value": "low"},
    {"do": "default", "path": "top_p", "value": 0.5},
    {"do": "rename", "path": "max_tokens", "to": "max_completion_tokens"},
    {"do": "remove", "path": "messages.*.name"},
    {"do": "set_header", "header": "X-Title", "value": "Acme"},
    {"do": "set_header", "header": "User-Agent", "value": "acme/1.0"},
]


def setting(path: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"do": "set", "path": path, "value": value, **more}


def test_chat_is_sent_what_the_rules_make_of_it(live: Portal, server: Server) -> None:
    model, token = live.model(overrides=MANY), live.token()
    asked = ask(model, temperature=0.2, max_tokens=5, top_k=3)
    asked["messages"][0]["name"] = "ann"
    response = server.post(token, asked)
    assert response.status_code == 200, response.text
    call = live.upstream.last(model)
    assert call.json == {
        "model": model,
        "messages": [{"role": "user", "content": "Say hello."}],
        "max_completion_tokens": 5,
        "reasoning_effort": "low",
        "top_p": 0.5,
        "top_k": 3,
    }
    assert call.headers["x-title"] == "Acme" and call.headers["user-agent"] == "acme/1.0"
    assert call.headers["authorization"].startswith("Bearer sk-upstream")
    assert response.headers["x-airelays-ignored-parameters"] == "temperature,messages.%2A.name"


def test_a_stream_asks_for_its_usage_as_ever(live: Portal, server: Server) -> None:
    model, token = live.model(overrides=MANY), live.token()
    response = server.post(token, ask(model, stream=True, temperature=1))
    assert response.text.rstrip().endswith("data: [DONE]")
    sent = live.upstream.last(model).json
    assert sent["stream"] is True and sent["stream_options"] == {"include_usage": True}
    assert "temperature" not in sent and live.record(response).usage_source == "reported"


def test_rules_are_for_the_models_that_they_name(live: Portal, server: Server) -> None:
    channel = live.channel(overrides=[{**REMOVE, "models": ["vendor/o3*"]}, {**setting("seed", 1), "models": ["no"]}])
    token = live.token()
    one = live.model(channels=[channel], upstream_name="vendor/o3-mini")
    other = live.model(channels=[channel])
    server.post(token, ask(one, temperature=1))
    server.post(token, ask(other, temperature=1))
    assert live.upstream.last("vendor/o3-mini").json.keys() == {"model", "messages"}
    assert live.upstream.last(other).json["temperature"] == 1


def test_another_channel_is_sent_what_the_client_said(live: Portal, server: Server) -> None:
    async def refusing(call: Call) -> None:
        if "seed" in call.json:
            await call.reply(503, {"error": {"message": "Overloaded."}})
        else:
            await hello(call)

    first, second = live.channel(priority=5, overrides=[REMOVE, setting("seed", 1)]), live.channel()
    model, token = live.model(refusing, channels=[first, second]), live.token()
    response = server.post(token, ask(model, temperature=1))
    assert response.status_code == 200 and response.headers["x-relay-channel"] == str(second.pk)
    assert live.upstream.last(model).json["temperature"] == 1
    assert "x-airelays-ignored-parameters" not in response.headers


def test_a_channel_without_overrides_passes_the_clients_bytes(live: Portal, server: Server) -> None:
    model, token = live.model(), live.token()
    body = json.dumps(ask(model, temperature=1), indent=3).encode()
    server.post(token, body)
    assert live.upstream.last(model).body == body


def test_rules_about_nothing_pass_the_clients_bytes(live: Portal, server: Server) -> None:
    model, token = live.model(overrides=[{"do": "remove", "path": "nowhere"}]), live.token()
    body = json.dumps(ask(model, temperature=1), indent=3).encode()
    server.post(token, body)
    assert live.upstream.last(model).body == body


def test_clients_of_every_api_at_an_upstream_of_chat(live: Portal, server: Server) -> None:
    """The rules are about the body as the upstream gets it."""
    rules = [*MANY, {"do": "remove", "path": "user"}]
    model, token = live.model(text_api="chat", overrides=rules), live.token()
    asked: dict[str, dict[str, Any]] = {
        "/v1/responses": {"model": model, "input": "x", "temperature": 1, "user": "u"},
        "/v1/messages": {
            "model": model,
            "max_tokens": 9,
            "temperature": 1,
            "messages": [{"role": "user", "content": "x"}],
        },
        f"/v1beta/models/{model}:generateContent": {
            "contents": [{"parts": [{"text": "x"}]}],
            "generationConfig": {"temperature": 1},
        },
    }
    for path, body in asked.items():
        response = server.post(token, body, path=path)
        assert response.status_code == 200, response.text
        sent = live.upstream.last(model)
        assert sent.path == "/v1/chat/completions" and sent.headers["x-title"] == "Acme"
        assert "temperature" not in sent.json and "user" not in sent.json and sent.json["reasoning_effort"] == "low"
        assert "temperature" in response.headers["x-airelays-ignored-parameters"]


def test_responses_at_their_own_upstream(live: Portal, server: Server) -> None:
    from tests.endpoints.text.responses_upstream import Upstream

    rules = [
        setting("reasoning.effort", "low"),
        {"do": "remove", "path": "input.*.status"},
        {"do": "remove", "path": "temperature"},
        setting("metadata.from", "portal"),
    ]
    model, token = live.model(Upstream(), text_api="responses", overrides=rules), live.token()
    item = {"type": "message", "role": "user", "status": "completed", "content": [{"type": "input_text", "text": "x"}]}
    response = server.post(token, {"model": model, "input": [item], "temperature": 1}, path="/v1/responses")
    assert response.status_code == 200, response.text
    sent = live.upstream.last(model).json
    assert sent["reasoning"] == {"effort": "low"} and "temperature" not in sent and "status" not in sent["input"][0]
    assert sent["metadata"] == {"from": "portal"}


def test_messages_pass_with_their_headers(live: Portal, server: Server) -> None:
    rules = [
        setting("thinking", {"type": "disabled"}),
        {"do": "remove", "path": "messages.*.content.*.cache_control"},
        {"do": "remove_header", "header": "anthropic-beta"},
        {"do": "default", "path": "system", "value": "Be brief."},
    ]
    script = messages.saying({"type": "text", "text": "Hello."})
    model, token = live.model(script, provider="anthropic", overrides=rules), live.token()
    block = {"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}
    body = {"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": [block]}]}
    response = server.post(token, body, path="/v1/messages", headers={"anthropic-beta": "b", "anthropic-version": "v"})
    assert response.status_code == 200, response.text
    call = live.upstream.last(model)
    assert "anthropic-beta" not in call.headers and call.headers["anthropic-version"] == "v"
    assert call.json == {
        "model": model,
        "max_tokens": 9,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        "thinking": {"type": "disabled"},
        "system": "Be brief.",
    }
    converted = server.post(token, ask(model))
    assert converted.status_code == 200 and live.upstream.last(model).json["system"] == "Be brief."


@pytest.mark.parametrize("spelling", ["generationConfig", "generation_config"])
def test_gemini_in_either_spelling(live: Portal, server: Server, spelling: str) -> None:
    rules = [setting("generationConfig.topK", 4), {"do": "remove", "path": "safetySettings"}]
    model = live.model(gemini.saying(gemini.TEXT), provider="gemini", upstream_name="gemini-3-up", overrides=rules)
    body = {"contents": [{"parts": [{"text": "x"}]}], spelling: {"temperature": 1}, "safetySettings": []}
    for method in ("generateContent", "streamGenerateContent?alt=sse"):
        response = server.post(live.token(), body, path=f"/v1beta/models/{model}:{method}")
        assert response.status_code == 200, response.text
        sent = live.upstream.last("gemini-3-up").json
        assert sent[spelling] == {"temperature": 1, "topK": 4} and "safetySettings" not in sent


@pytest.mark.parametrize(
    ("path", "body", "rule", "expected"),
    [
        ("/v1/embeddings", {"input": "x"}, setting("dimensions", 64), {"dimensions": 64}),
        ("/v1/moderations", {"input": "x"}, setting("user", "u"), {"user": "u"}),
        ("/v1/images/generations", {"prompt": "x"}, setting("quality", "low"), {"quality": "low"}),
        ("/v1/audio/speech", {"input": "x", "voice": "a"}, setting("voice", "b"), {"voice": "b"}),
        ("/v1/rerank", {"query": "x", "documents": ["x"]}, setting("top_n", 1), {"top_n": 1}),
        ("/v1/completions", {"prompt": "x"}, setting("seed", 3), {"seed": 3}),
    ],
)
def test_pass_through_endpoints(
    live: Portal, server: Server, path: str, body: dict[str, Any], rule: dict[str, Any], expected: dict[str, Any]
) -> None:
    model, token = live.model(anything, provider="relay", overrides=[rule]), live.token()
    response = server.post(token, {"model": model, **body}, path=path)
    assert response.status_code == 200, response.text
    assert live.upstream.last(model).json == {"model": model, **body, **expected}


def test_what_the_portal_reads_the_answer_by_stays(live: Portal, server: Server) -> None:
    """A client that asks for Base64 gets it, whatever the channel's rules say of the encoding."""
    rules = [setting("encoding_format", "float"), setting("dimensions", 8)]
    model, token = live.model(anything, overrides=rules), live.token()
    body = {"model": model, "input": "x", "encoding_format": "base64"}
    response = server.post(token, body, path="/v1/embeddings")
    assert response.status_code == 200 and isinstance(response.json()["data"][0]["embedding"], str)
    assert live.upstream.last(model).json["dimensions"] == 8


def test_forms(live: Portal, sdk: OpenAI, server: Server) -> None:
    rules = [setting("quality", "low"), {"do": "remove", "path": "user"}, {"do": "rename", "path": "size", "to": "res"}]
    model = live.model(anything, overrides=rules)
    server.catch_up()
    png = b"\x89PNG\r\n\x1a\n" + b"\0" * 40
    answer = sdk.images.with_raw_response.edit(model=model, image=("a.png", png), prompt="x", size="256x256", user="u")
    call = live.upstream.last(model)
    assert call.json == {"model": model, "prompt": "x", "res": "256x256", "quality": "low"}
    assert bytes(call.form.content(call.form.files("image")[0])) == png
    assert answer.headers["x-airelays-ignored-parameters"] == "user"


def test_vectors_of_gemini(live: Portal, server: Server) -> None:
    async def vectors(call: Call) -> None:
        await call.reply(200, {"embeddings": [{"values": [0.5]}] * len(call.json["requests"])})

    rules = [setting("taskType", "CLUSTERING", apis=["embed_content"])]
    model = live.model(vectors, provider="gemini", upstream_name="vec-up", overrides=rules)
    token = live.token()
    one = {"content": {"parts": [{"text": "x"}]}}
    for path, body in (
        (f"/v1beta/models/{model}:batchEmbedContents", {"requests": [one, one]}),
        ("/v1/embeddings", {"model": model, "input": ["x", "y"]}),
    ):
        response = server.post(token, body, path=path)
        assert response.status_code == 200, response.text
        assert [entry["taskType"] for entry in live.upstream.last("vec-up").json["requests"]] == ["CLUSTERING"] * 2


def test_rules_that_cannot_be_used_close_the_channel(live: Portal, server: Server) -> None:
    """They can only be written past the form: nobody's key is sent with a request that was not checked."""
    bad = [{"do": "set_header", "header": "Authorization", "value": "Bearer x"}]
    model, token = live.model(channels=[live.channel(overrides=bad), live.channel()]), live.token()
    for _ in range(4):
        assert server.post(token, ask(model)).status_code == 200
    assert all("secret" in call.headers["authorization"] for call in live.upstream.calls if call.model == model)
