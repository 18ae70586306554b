"""Bodies of requests: what is refused, and how large ones arrive."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import httpx
import pytest

from tests.support.asserts import check
from tests.support.portal import Portal, ask
from tests.support.server import Server


@pytest.mark.shared
def test_body_of_several_megabytes_passes(server: Server, live: Portal) -> None:
    model = live.model()
    content = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5_000_000}}]
    response = server.post(live.token(), {"model": model, "messages": [{"role": "user", "content": content}]})
    assert response.status_code == 200
    assert len(live.upstream.last(model).body) > 5_000_000


@pytest.mark.shared
def test_chunked_request_body_without_length_passes(server: Server, live: Portal) -> None:
    import httpx

    model, token = live.model(), live.token()
    body = json.dumps(ask(model)).encode()
    server.catch_up()
    response = httpx.post(
        f"{server.v1}/chat/completions",
        content=iter([body[:10], body[10:]]),
        headers={"authorization": f"Bearer {token}"},
        trust_env=False,
        timeout=60,
    )
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"{", "invalid_json", None),
        (b"[]", "invalid_json", None),
        (b'"x"', "invalid_json", None),
        (b"null", "invalid_json", None),
        (b"\xff\xfe{}", "invalid_json", None),
        (b"{" + b'"a":[' * 200_000, "invalid_json", None),
        (b'{"messages":[{}]}', "missing_required_parameter", "model"),
        (b'{"model":5,"messages":[{}]}', "invalid_value", "model"),
        (b'{"model":null,"messages":[{}]}', "invalid_value", "model"),
        (b'{"model":" ","messages":[{}]}', "invalid_value", "model"),
        (b'{"model":"m"}', "missing_required_parameter", "messages"),
        (b'{"model":"m","messages":[]}', "invalid_value", "messages"),
        (b'{"model":"m","messages":"hi"}', "invalid_value", "messages"),
        (b'{"model":"m","messages":[{}],"stream":"yes"}', "invalid_value", "stream"),
        (b'{"model":"m","messages":[{}],"stream_options":7}', "invalid_value", "stream_options"),
        (b'{"model":"m","messages":[{}],"n":0}', "invalid_value", "n"),
        (b'{"model":"m","messages":[{}],"n":1.5}', "invalid_value", "n"),
    ],
)
def test_wrong_bodies(server: Server, live: Portal, body: bytes, code: str, param: str | None) -> None:
    check(server.post(live.token(), body), 400, "invalid_request_error", code, param)


def test_explicit_nulls_are_legal(server: Server, live: Portal) -> None:
    assert (
        server.post(live.token(), ask(live.model(), stream=None, stream_options=None, n=None, tools=None)).status_code
        == 200
    )


def test_announced_large_body_is_refused_before_it_is_sent(server: Server, live: Portal) -> None:
    token = live.token()
    server.catch_up()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: "
            "99999999999\r\n\r\n".encode()
        )
        answer = connection.recv(65536)
        while b"}}" not in answer:
            answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413") and b"request_too_large" in answer and b"8 MiB" in answer


def test_large_body_without_length_is_refused_when_it_passes_the_limit(server: Server, live: Portal) -> None:
    token = live.token()
    server.catch_up()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ntransfer-encoding: "
            "chunked\r\n\r\n".encode()
        )
        piece = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        for _ in range(9):
            connection.sendall(piece)
        assert connection.recv(65536).startswith(b"HTTP/1.1 413")


def test_slow_upload_arrives_whole(server: Server, live: Portal) -> None:
    model, token = live.model(), live.token()
    body = json.dumps(ask(model, padding="x" * 3000)).encode()

    def pieces() -> Any:
        for start in range(0, len(body), 500):
            yield body[start : start + 500]
            time.sleep(0.15)

    server.catch_up()
    response = httpx.post(
        f"{server.v1}/chat/completions",
        content=pieces(),
        headers={"authorization": f"Bearer {token}"},
        timeout=20,
        trust_env=False,
    )
    assert response.status_code == 200, response.text
    assert live.upstream.last(model).body == body


def test_body_of_an_unknown_token_is_not_read(server: Server, clean_addresses: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-no\r\ncontent-length: "
            b"5000000\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 401")
