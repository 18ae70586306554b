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
        (b"{" + b'"a":[' * 90_000, "invalid_json", None),
        (b"{" + b'"a":[' * 200_000, "invalid_value", None),  # more members than any request has
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


NUMBERS = ("²", "9" * 5000, "9" * 19, "--5", "1e400", "٣", "%00")
LISTS = (
    "/v1/files?",
    "/v1/batches?",
    "/v1/conversations/{conversation}/items?",
    "/v1/responses/{response}/input_items?",
)


@pytest.mark.shared
def test_what_is_no_number_is_refused_wherever_one_is_read(server: Server, live: Portal) -> None:
    token, model = live.token(), live.model(provider="vllm", text_api="chat")
    conversation = server.post(token, {}, "/v1/conversations").json()["id"]
    response = server.post(token, {"model": model, "input": "Hi"}, "/v1/responses").json()["id"]
    form = {"authorization": f"Bearer {token}"}
    wrong = []
    for number in NUMBERS:
        paths = [path.format(conversation=conversation, response=response) + f"limit={number}" for path in LISTS]
        paths.append(f"/v1/responses/{response}?stream=true&starting_after={number}")
        answers = [(path, server.get(token, path)) for path in paths]
        text = number if number != "%00" else "\x00"
        lifetime = {"anchor": "created_at", "seconds": text}
        upload = {"bytes": 1, "filename": "a", "mime_type": "text/plain", "purpose": "user_data"}
        answers.append(("uploads", server.post(token, upload | {"expires_after": lifetime}, "/v1/uploads")))
        batch = {"input_file_id": "file-x", "endpoint": "/v1/responses", "completion_window": "24h"}
        answers.append(("batches", server.post(token, batch | {"output_expires_after": lifetime}, "/v1/batches")))
        answers.append(
            ("images n", server.post(token, {"model": model, "prompt": "x", "n": text}, "/v1/images/generations"))
        )
        fields = {"purpose": "user_data", "expires_after[anchor]": "created_at", "expires_after[seconds]": text}
        answers.append(
            (
                "files form",
                httpx.post(
                    f"{server.v1}/files",
                    data=fields,
                    files={"file": ("a", b"x")},
                    headers=form,
                    trust_env=False,
                    timeout=60,
                ),
            )
        )
        wrong += [
            (path, number[:9], answer.status_code) for path, answer in answers if not 400 <= answer.status_code < 500
        ]
    assert not wrong


@pytest.mark.shared
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "Hi", "previous_response_id": "a\x00"}),
        ("/v1/responses", {"input": "Hi", "conversation": "a\x00"}),
        ("/v1/responses", {"input": "Hi", "metadata": {"a\x00": "b\x00"}, "prompt_cache_key": "\x00", "user": "\x00"}),
        ("/v1/responses", {"input": "Hi\x00", "instructions": "\x00"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "\x00"}], "user": "\x00"}),
        ("/v1/conversations", {"metadata": {"a": "\x00"}, "items": [{"role": "user", "content": "\x00"}]}),
        ("/v1/batches", {"input_file_id": "\x00", "endpoint": "/v1/responses", "completion_window": "24h"}),
        ("/v1/uploads", {"bytes": 1, "filename": "\x00", "mime_type": "\x00", "purpose": "user_data"}),
        ("/v1/realtime/client_secrets", {"session": {"model": "\x00"}}),
        ("/v1/chat/completions", {"model": "\x00", "messages": [{"role": "user", "content": "Hi"}]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_nul_in_a_body_breaks_nothing(server: Server, live: Portal, path: str, body: dict[str, Any]) -> None:
    """PostgreSQL stores none in a text."""
    answer = server.post(live.token(), {"model": live.model(provider="vllm", text_api="chat"), **body}, path)
    assert answer.status_code < 500, answer.text
