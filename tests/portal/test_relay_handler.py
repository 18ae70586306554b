"""HTTP as old clients and probes speak it: HEAD, HTTP/1.0."""

from __future__ import annotations

import json
import socket
from typing import Any

import httpx
import pytest

from tests.support.portal import Portal, ask
from tests.support.server import Server


def whole_answer(server: Server, request: str) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(request.encode())
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models", 200),
        ("/models/", 200),
        ("/openai/models?api-version=2024-10-21", 200),
        ("/v1/models/no-such", 404),
        ("/v1/nothing", 404),
        ("/v1/chat/completions", 405),
        ("/v1/files", 200),
        ("/v1/files/{file}/content", 200),
        ("/v1/usage", 200),
        ("/health", 404),
        ("/", 200),
    ],
)
def test_head_is_get_without_a_body(server: Server, live: Portal, path: str, status: int) -> None:
    token = live.token()
    server.catch_up()
    made = httpx.post(
        f"{server.v1}/files",
        headers={"api-key": token},
        files={"file": ("a.txt", b"abc")},
        data={"purpose": "user_data"},
        trust_env=False,
    ).json()
    path = path.replace("{file}", made["id"])
    head, _, body = whole_answer(
        server, f"HEAD {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\napi-key: {token}\r\n\r\n"
    ).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d" % status) and body == b""
    if path != "/":
        got = httpx.get(server.url + path, headers={"authorization": f"Bearer {token}"}, trust_env=False)
        if path != "/v1/usage":
            assert b"content-length: %d" % len(got.content) in head or status == 405


@pytest.mark.parametrize("stream", [False, True])
def test_http_1_0_gets_no_chunks(server: Server, live: Portal, stream: bool) -> None:
    model, token = live.model(), live.token()
    server.catch_up()
    body = json.dumps(ask(model, stream=stream))

    def answer(version: str, more: str = "") -> tuple[str, str]:
        head, _, text = (
            whole_answer(
                server,
                f"POST /v1/chat/completions HTTP/{version}\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n"
                f"content-length: {len(body)}\r\n{more}\r\n{body}",
            )
            .decode()
            .partition("\r\n\r\n")
        )
        return head.lower(), text

    for more in ("", "connection: keep-alive\r\n"):
        head, text = answer("1.0", more)
        assert head.startswith("http/1.1 200") and "transfer-encoding" not in head and "connection: close" in head
        if stream:
            events: list[Any] = text.removesuffix("\n\n").split("\n\n")
            assert "content-length" not in head and events[-1] == "data: [DONE]"
            assert all(json.loads(event.removeprefix("data: "))["object"] for event in events[:-1])
        else:
            assert json.loads(text)["object"] == "chat.completion"
    assert ("transfer-encoding: chunked" in answer("1.1", "connection: close\r\n")[0]) is stream


def test_http_1_0_gets_a_file_and_a_page(server: Server, live: Portal) -> None:
    for path, status in (("/accounts/login/", b"200"), ("/v1/nothing", b"404"), ("/healthz", b"200")):
        head, _, body = whole_answer(server, f"GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").partition(b"\r\n\r\n")
        assert head.split()[1] == status and b"chunked" not in head and body
