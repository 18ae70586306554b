"""Gemini's API as its clients without an SDK call it: keys, versions, streams that are lists, what is refused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.api.gemini.clients import HELLO, ask
from tests.support.peers import gemini
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, chunk


@pytest.fixture
def token(live: Portal) -> str:
    return live.token()


def at_gemini(live: Portal, server: Server, script: Any = None, **options: Any) -> str:
    model = live.model(script or gemini.saying(), provider="gemini", **options)
    server.catch_up()
    return model


def at_chat(live: Portal, server: Server, script: Any = None) -> str:
    model = live.model(script)
    server.catch_up()
    return model


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"x-goog-api-key": "{}"}, {}),
        ({"authorization": "Bearer {}"}, {}),
        ({}, {"key": "{}"}),
    ],
    ids=["header", "bearer", "query"],
)
def test_the_token_is_taken_as_googles_clients_send_it(
    live: Portal, server: Server, token: str, headers: dict[str, str], query: dict[str, str]
) -> None:
    model = at_gemini(live, server)
    sent = [{name: value.format(token) for name, value in one.items()} for one in (headers, query)]
    answer = ask(server, model, token, headers=sent[0], params=sent[1])
    assert answer.status_code == 200 and answer.json() == gemini.response()
    assert token not in live.upstream.last(model).path and token not in str(live.upstream.last(model).headers)


def test_a_token_in_the_address_is_in_no_log_and_no_record(live: Portal, server: Server, token: str) -> None:
    from relay.models import RefusedRequest

    wrong = f"{token[:-4]}zzzz"
    answer = ask(server, "none", token, headers={}, params={"key": wrong, "alt": "json"})
    assert answer.status_code == 401 and wrong not in answer.text
    assert answer.json()["error"]["status"] == "UNAUTHENTICATED"
    assert ask(server, "none", token, headers={}, params={"key": token}).status_code == 404
    assert wrong not in server.log.read_text() and token not in server.log.read_text()
    for refused in RefusedRequest.objects.all():
        shown = str({field.name: getattr(refused, field.name) for field in RefusedRequest._meta.concrete_fields})
        assert wrong not in shown and token not in shown


@pytest.mark.parametrize("version", ["v1", "v1alpha", "v1beta"])
def test_all_versions_are_served_alike(live: Portal, server: Server, token: str, version: str) -> None:
    model = at_gemini(live, server)
    assert ask(server, model, token, version=version).json() == gemini.response()
    with httpx.Client(headers={"x-goog-api-key": token}, trust_env=False) as client:
        listed = client.get(f"{server.url}/{version}/models", params={"pageSize": "1"}).json()
        assert len(listed["models"]) == 1 and listed["models"][0]["name"].startswith("models/")
        nothing = client.get(f"{server.url}/{version}/nothing")
        assert nothing.json()["error"]["status"] == "NOT_FOUND" and nothing.status_code == 404


@pytest.mark.parametrize("provider", ["gemini", "openai"])
def test_a_stream_without_events_is_a_list(live: Portal, server: Server, token: str, provider: str) -> None:
    model = at_gemini(live, server) if provider == "gemini" else at_chat(live, server)
    answer = ask(server, model, token, method="streamGenerateContent")
    assert answer.headers["content-type"].startswith("application/json")
    found = answer.json()
    said = "".join(part.get("text", "") for one in found for part in one["candidates"][0]["content"]["parts"])
    assert said == "Hello there." and found[-1]["candidates"][0]["finishReason"] == "STOP"
    assert found[-1]["usageMetadata"]["totalTokenCount"] == 16
    record = live.record(answer)
    assert (record.input_tokens, record.output_tokens) == (9, 7) and record.usage_source == "reported"


def test_a_stream_passes_through_as_its_bytes(live: Portal, server: Server, token: str) -> None:
    data = b"".join(b"data: " + json.dumps(one).encode() + b"\r\n\r\n" for one in gemini.pieces(gemini.response()))
    model = at_gemini(live, server)
    answer = ask(server, model, token, method="streamGenerateContent", params={"alt": "sse"})
    assert answer.content == data and answer.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_a_stream_that_is_cut_off_ends_with_an_error(live: Portal, server: Server, token: str) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        await call.event(gemini.pieces(gemini.response())[0])
        await call.end()

    model = at_gemini(live, server, script)
    for params, read in (({"alt": "sse"}, None), ({}, json.loads)):
        answer = ask(server, model, token, method="streamGenerateContent", params=params)
        text = answer.text
        last = read(text)[-1] if read is not None else json.loads(text.split("data: ")[-1])
        assert last["error"]["status"] == "UNAVAILABLE" and last["error"]["code"] == 502


def test_a_waiting_stream_is_sent_nothing_that_googles_sdk_takes_for_an_answer(
    live: Portal, server: Server, token: str
) -> None:
    go = asyncio.Event()

    async def script(call: Call) -> None:
        await call.open_stream()
        await call.event(chunk("Hello"))
        await go.wait()
        await call.event(chunk(None, "stop"))
        await call.event("[DONE]")
        await call.end()

    model = at_chat(live, server, script)
    seen = b""
    address = f"{server.url}/v1beta/models/{model}:streamGenerateContent?alt=sse"
    with (
        httpx.Client(headers={"x-goog-api-key": token}, timeout=30, trust_env=False) as client,
        client.stream("POST", address, json=HELLO) as answer,
    ):
        for piece in answer.iter_raw():
            seen += piece
            if piece == b"\r\n":
                live.upstream.set(go)
    assert seen.replace(b"\r\n", b"\n").count(b"\n\n\n") >= 1
    lines = [line for line in seen.replace(b"\r\n", b"\n").split(b"\n") if line]
    assert all(line.startswith(b"data: {") for line in lines) and b"STOP" in lines[-1]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"contents": []}, "contents"),
        ({**HELLO, "system_instruction": {}, "systemInstruction": {}}, "systemInstruction"),
        ({**HELLO, "GenerationConfig": {"maxOutputTokens": 1}}, "generationConfig"),
        ({**HELLO, "generationConfig": {"maxoutputtokens": 1}}, "generationConfig.maxOutputTokens"),
        ({**HELLO, "generationConfig": {"candidateCount": 99}}, "generationConfig.candidateCount"),
        ({**HELLO, "generationConfig": []}, "generationConfig"),
        ({**HELLO, "cachedContent": "cachedContents/abc"}, "cachedContent"),
        (
            {
                "contents": [
                    {"parts": [{"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1/files/a"}}]}
                ]
            },
            "contents[0].parts[0].fileData.fileUri",
        ),
        (
            {"contents": [{"parts": [{"file_data": {"file_uri": "gs://bucket/a"}}]}]},
            "contents[0].parts[0].file_data.file_uri",
        ),
    ],
)
def test_what_is_wrong_or_of_the_account_is_refused_with_its_name(
    live: Portal, server: Server, token: str, body: dict[str, Any], field: str
) -> None:
    model = at_gemini(live, server)
    answer = ask(server, model, token, body)
    error = answer.json()["error"]
    assert answer.status_code == error["code"] == 400 and error["status"] == "INVALID_ARGUMENT"
    assert error["details"][0]["metadata"]["field"] == field
    assert live.upstream.count(model) == 0


def test_what_is_not_served_of_the_api_is_said(live: Portal, server: Server, token: str) -> None:
    model = at_gemini(live, server)
    answer = ask(server, model, token, {"instances": []}, method="asyncBatchEmbedContent")
    assert answer.status_code in {404, 501} and answer.json()["error"]["status"] in {"NOT_FOUND", "UNIMPLEMENTED"}
    assert "asyncBatchEmbedContent" in answer.json()["error"]["message"] and live.upstream.count(model) == 0


def test_a_limit_is_kept_in_either_spelling(live: Portal, server: Server, token: str) -> None:
    model = at_gemini(live, server)
    for name, config in (("generationConfig", "maxOutputTokens"), ("generation_config", "max_output_tokens")):
        body = {**HELLO, name: {config: 7, "unknown_member": 1}, "labels": {"a": "b"}}
        assert ask(server, model, token, body).status_code == 200
        assert live.upstream.last(model).json == body


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        ({"thinkingLevel": "LOW"}, "low"),
        ({"thinking_budget": 0}, "none"),
        ({"thinkingBudget": 9000}, "high"),
        ({"thinkingBudget": -1}, None),
    ],
)
def test_thinking_is_an_effort_elsewhere(
    live: Portal, server: Server, token: str, thinking: dict[str, Any], effort: str | None
) -> None:
    model = at_chat(live, server)
    body = {**HELLO, "generationConfig": {"thinkingConfig": thinking, "stopSequences": ["x"], "maxOutputTokens": 9}}
    assert ask(server, model, token, body).status_code == 200
    sent = live.upstream.last(model).json
    assert sent.get("reasoning_effort") == effort and sent["stop"] == ["x"]
    assert sent.get("max_tokens", sent.get("max_completion_tokens")) == 9
