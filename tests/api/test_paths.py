"""Paths as clients type them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from openai import AzureOpenAI

from relay.api.paths import deployment_of, relay_path
from tests.support.asserts import check
from tests.support.portal import Portal, ask
from tests.support.server import Server
from tests.support.upstream import Call, completion, sound


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1/models/", "/v1/models"),
        ("/v1//models", "/v1/models"),
        ("/v1/v1/models", "/v1/models"),
        ("/models", "/v1/models"),
        ("/models/openai/gpt-4", "/v1/models/openai/gpt-4"),
        ("/v1/chat/completions/models", "/v1/models"),
        ("/v1/models/chat/completions", "/v1/models/chat/completions"),
        ("/v1", "/v1"),
        ("/v1beta/models", "/v1/models"),
        ("/v1beta/models/a/b:generateContent/", "/v1/models/a/b:generateContent"),
        ("/v1betas/models", None),
        ("/mj-fast/mj/submit/imagine", "/mj-fast/mj/submit/imagine"),
        ("/dashboard/billing/usage", "/v1/dashboard/billing/usage"),
        ("/openai/deployments/gpt-4o/chat/completions", "/v1/chat/completions"),
        ("/openai/deployments/org/gpt-4o/embeddings/", "/v1/embeddings"),
        ("/openai/deployments/whisper/audio/transcriptions", "/v1/audio/transcriptions"),
        ("/v1/openai/deployments/gpt-4o/chat/completions", "/v1/chat/completions"),
        ("/openai/v1/responses", "/v1/responses"),
        ("/openai/v1/responses/resp_1/cancel", "/v1/responses/resp_1/cancel"),
        ("/openai/models", "/v1/models"),
        ("/openai/files/file-1/content", "/v1/files/file-1/content"),
        ("/openai/deployments", "/openai/deployments"),
        ("/openai/deployments/m/extensions/chat/completionsx", "/openai/deployments/m/extensions/chat/completionsx"),
        ("/openai", "/openai"),
        ("/openaix", None),
        ("/api/tags", "/api/tags"),
        ("/api/v1/channels", None),
        ("/api/user/self", None),
        ("/api/users", "/api/users"),
        ("/health", "/health"),
        ("/healthz", None),
        ("/", None),
        ("/admin/", None),
        ("/tokens/", None),
        ("/usage/", None),
        ("/accounts/login/", None),
        ("/static/portal/portal.css", None),
        ("/mjx", None),
    ],
)
def test_canonical_paths(typed: str, meant: str | None) -> None:
    assert relay_path(typed) == meant


def test_the_deployment_of_azures_paths() -> None:
    assert deployment_of("/openai/deployments/org/gpt-4o//embeddings/") == "org/gpt-4o"
    assert deployment_of("/openai/v1/deployments/m/chat/completions") == "m"
    assert deployment_of("/openai/deployments/m") == deployment_of("/v1/chat/completions") == ""


def test_azures_client_is_served_by_the_deployment_in_the_path(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        if call.path.endswith("/embeddings"):
            await call.reply(200, {"object": "list", "data": [{"index": 0, "embedding": [1.0]}], "model": "u"})
        elif call.path.endswith("/audio/transcriptions"):
            await call.reply(200, {"text": "hi"})
        else:
            await call.reply(200, completion())

    model, token = live.model(script, upstream_name="u-azure"), live.token()
    live.upstream.script("u-azure", script)
    server.catch_up()
    with httpx.Client(trust_env=False) as http:
        options: dict[str, Any] = {"api_key": token, "api_version": "2024-10-21", "http_client": http}
        sdk = AzureOpenAI(azure_endpoint=server.url, **options)
        assert sdk.chat.completions.create(**ask(model)).choices[0].message.content
        assert sdk.embeddings.create(model=model, input="a", encoding_format="float").data
        assert sdk.audio.transcriptions.create(model=model, file=("a.wav", sound(1))).text == "hi"
        assert [entry.id for entry in sdk.models.list()]
        fixed = AzureOpenAI(base_url=f"{server.url}/openai/deployments/{model}", **options)
        made = fixed.chat.completions.with_raw_response.create(**ask("closed"))
        assert live.record(made.headers["x-request-id"]).model == model
    assert live.upstream.last("u-azure").json["model"] == "u-azure"


def test_azures_paths_are_let_in_as_all_others(server: Server, live: Portal) -> None:
    model, closed, token = live.model(), live.model(is_open=False), live.token()
    azure = "/openai/deployments/{}/chat/completions?api-version=2024-10-21"
    body = {"messages": [{"role": "user", "content": "x"}]}
    assert server.post(token, body, path=azure.format(model)).status_code == 200
    assert live.upstream.last(model).json["model"] == model
    check(server.post(token, body, path=azure.format(closed)), 403, "permission_error", "model_not_allowed", "model")
    check(
        server.post(token, ask(model), path=azure.format(closed)), 403, "permission_error", "model_not_allowed", "model"
    )
    check(server.post("sk-no", body, path=azure.format(model)), 401, "authentication_error", "invalid_api_key")
    limited = live.token(allowed_ips=["203.0.113.0/24"])
    check(server.post(limited, body, path=azure.format(model)), 403, "permission_error", "ip_not_allowed")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions/x", 404),
        ("POST", "/v1/chat/completions/x", 404),
        ("GET", "/v1/images/unknown", 404),
        ("POST", "/v1/files/file-1/unknown", 404),
        ("GET", "/v1/threads/x/runs", 404),
        ("POST", "/v1/vector_stores", 404),
        ("GET", "/v1/health", 404),
        ("GET", "/v1/chat/completions", 405),
        ("PUT", "/v1/models", 405),
        ("PATCH", "/v1/conversations/conv_1", 405),
        ("TRACE", "/v1/models", 405),
        ("GET", "/health", 404),
        ("GET", "/api/tags", 404),
        ("POST", "/api/chat", 404),
        ("GET", "/api/version", 404),
        ("GET", "/props", 404),
        ("GET", "/slots", 404),
        ("GET", "/version", 404),
        ("GET", "/metrics", 404),
        ("GET", "/openai/deployments", 404),
        ("GET", "/openai/deployments/m/unknown", 404),
        ("GET", "/whatever/an/app/looks/for", 404),
        ("POST", "/whatever", 404),
    ],
)
def test_wrong_paths_and_probes_are_told_in_json(
    server: Server, live: Portal, method: str, path: str, status: int
) -> None:
    response = server.request(method, live.token(), path)
    error = response.json()["error"]
    assert response.status_code == status and response.headers["content-type"] == "application/json"
    assert error["code"] in {404: ("unknown_url", "not_implemented"), 405: ("method_not_allowed",)}[status]
    assert error["type"] == "invalid_request_error" and error["message"][-1] == "."
    assert ("allow" in response.headers) == (status == 405)
    if status == 405:
        assert response.headers["allow"] in error["message"] and method not in response.headers["allow"].split(", ")
    if path.startswith("/v1"):
        alone = httpx.request(method, server.url + path, trust_env=False)
        assert alone.status_code in {status, 401, 429}, "no token, or a wrong one, changes nothing else"


@pytest.mark.parametrize(
    ("path", "word"), [("/api/tags", "Ollama"), ("/api/option/", "/api/v1"), ("/api/tagsx", "/api/v1")]
)
def test_only_ollamas_clients_are_told_of_ollama(server: Server, path: str, word: str) -> None:
    said = server.get("none", path).json()["error"]["message"]
    assert word in said and ("Ollama" in said) == (word == "Ollama")


def test_a_staff_key_is_known_as_one(server: Server) -> None:
    answer = server.get("sk-staff-0123456789", "/v1/models")
    check(answer, 401, "authentication_error", "invalid_api_key")
    assert "staff key" in answer.json()["error"]["message"] and "/api/v1" in answer.json()["error"]["message"]


def test_browsers_are_shown_a_page(server: Server) -> None:
    response = httpx.get(f"{server.url}/whatever", headers={"accept": "text/html,*/*;q=0.8"}, trust_env=False)
    assert response.status_code == 404 and response.headers["content-type"].startswith("text/html")
