"""Every error of a request that was let in: its status, its type and code, its headers, and that it says what to do."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Portal, ask
from tests.support.asserts import check
from tests.support.server import Server, free_port, serving
from tests.support.upstream import Call, Upstream, chunk, completion


def test_unknown_model(server: Server, live: Portal) -> None:
    check(server.post(live.token(), ask("no-such-model")), 404, "invalid_request_error", "model_not_found", "model")
    check(server.get(live.token(), "/v1/models/no%2Fsuch"), 404, "invalid_request_error", "model_not_found", "model")


def test_model_with_a_slash_is_found(server: Server, live: Portal) -> None:
    from relay.models import Model

    model = live.model()
    Model.objects.filter(name=model).update(name=f"vendor/{model}")
    for path in (f"vendor/{model}", f"vendor%2F{model}", f"vendor/{model}/"):
        response = server.get(live.token(), f"/v1/models/{path}")
        assert response.status_code == 200 and response.json()["id"] == f"vendor/{model}"


def test_unknown_and_unserved_routes_and_wrong_methods(server: Server, live: Portal) -> None:
    check(server.get(live.token(), "/v1/nothing"), 404, "invalid_request_error", "unknown_url")
    response = server.post(live.token(), {}, path="/v1/vector_stores")
    check(response, 501, "unsupported_error", "not_implemented")
    assert response.headers["x-should-retry"] == "false"
    response = server.get(live.token(), "/v1/chat/completions")
    check(response, 405, "invalid_request_error", "method_not_allowed")
    assert response.headers["allow"] == "POST"
    check(server.post(live.token(), {}, path="/"), 404, "invalid_request_error", "unknown_url")
    check(server.get(live.token(), "/mj/task/1/fetch"), 404, "invalid_request_error", "unknown_url")


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
    assert server.post(live.token(), ask(live.model(), stream=None, stream_options=None, n=None, tools=None)).status_code == 200


def test_announced_large_body_is_refused_before_it_is_sent(server: Server, live: Portal) -> None:
    token = live.token()
    server.catch_up()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 99999999999\r\n\r\n".encode())
        answer = connection.recv(65536)
        while b"}}" not in answer:
            answer += connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413") and b"request_too_large" in answer and b"8 MiB" in answer


def test_large_body_without_length_is_refused_when_it_passes_the_limit(server: Server, live: Portal) -> None:
    token = live.token()
    server.catch_up()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
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
    response = httpx.post(f"{server.v1}/chat/completions", content=pieces(), headers={"authorization": f"Bearer {token}"}, timeout=20, trust_env=False)
    assert response.status_code == 200, response.text
    assert live.upstream.last(model).body == body


def test_upstreams_are_not_named_to_users(server: Server, live: Portal) -> None:
    port = free_port()
    record = live.record(server.post(live.token(), ask(live.model(channels=[live.channel(f"http://127.0.0.1:{port}/v1")]))))
    assert str(port) in json.dumps(record.attempt_log), "staff see the cause"
    assert str(port) not in record.error_message and record.error_message


def test_body_of_an_unknown_token_is_not_read(server: Server, clean_addresses: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-no\r\ncontent-length: 5000000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401")


def test_model_without_any_usable_channel(server: Server, live: Portal) -> None:
    from relay.models import Channel

    channel = live.channel(enabled=False)
    token, model = live.token(), live.model(channels=[channel])
    response = server.post(token, ask(model))
    check(response, 503, "server_error", "no_available_channel")
    assert response.headers["x-should-retry"] == "false"
    assert live.record(response).end_reason == "no_channel"
    Channel.objects.filter(pk=channel.pk).update(enabled=True)
    assert server.post(token, ask(model)).status_code == 200


async def refuse_key(call: Call) -> None:
    await call.error(401, "Incorrect API key provided: sk-upst***4321. See https://vendor.example.com/keys", "invalid_api_key")


@pytest.mark.parametrize(("status", "code"), [(401, "invalid_api_key"), (403, "forbidden"), (402, "x"), (429, "insufficient_quota")])
def test_upstream_that_refuses_our_key_is_never_a_401(server: Server, live: Portal, status: int, code: str) -> None:
    async def script(call: Call) -> None:
        await call.error(status, "bad key sk-live-secret-key-1234", code)

    model = live.model(script, keys=("sk-first-key-0123456789abc", "sk-second-key-0123456789ab"))
    response = server.post(live.token(), ask(model))
    message = check(response, 502, "server_error", "upstream_credentials_exhausted")
    assert response.headers["x-should-retry"] == "false"
    assert "sk-" not in message
    record = live.record(response)
    assert record.attempts == 2 and live.upstream.count(model) == 2, "every key is tried once"
    assert "sk-live" not in json.dumps(record.attempt_log)


def test_failed_key_is_followed_by_another_and_the_client_sees_nothing(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        if "first" in call.headers["authorization"]:
            await refuse_key(call)
        else:
            await call.reply(200, completion())

    model, token = live.model(script, keys=("sk-first-key-0123456789abc", "sk-second-key-0123456789ab")), live.token()
    attempts = {server.post(token, ask(model)).headers["x-relay-attempts"] for _ in range(12)}
    assert attempts <= {"1", "2"} and "2" in attempts


def test_siblings_come_before_a_lower_priority(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        if call.headers["authorization"].endswith("good"):
            await call.reply(200, completion())
        else:
            await call.error(500)

    low = live.channel(keys=("sk-low-0123456789-good",), priority=-5)
    siblings = [live.channel(keys=("sk-bad-0123456789-bad0",), priority=5), live.channel(keys=("sk-sib-0123456789-good",), priority=5)]
    model, token = live.model(script, channels=[low, *siblings]), live.token()
    for _ in range(6):
        assert server.post(token, ask(model)).headers["x-relay-channel"] == str(siblings[1].pk)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 404, 413, 415, 422])
def test_upstreams_own_refusal_keeps_status_type_and_code(server: Server, live: Portal, status: int, stream: bool) -> None:
    async def script(call: Call) -> None:
        await call.error(status, "Bad thing at https://secret.vendor.example.com/x for org-abc123456 with sk-1234567890abc.", 1234)

    response = server.post(live.token(), ask(live.model(script), stream=stream))
    message = check(response, status, "mock_error", "1234")
    assert "vendor" not in message and "org-abc" not in message and "sk-1" not in message and message.startswith("Bad thing")
    assert live.record(response).end_reason == "client_error"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"detail": "no such field"}', "no such field"),
        (b'{"error": "just text"}', "just text"),
        (b'{"object":"error","message":"flat","type":"BadRequest","code":40001}', "flat"),
        (b'[{"error":{"message":"in a list"}}]', "in a list"),
    ],
)
def test_odd_shapes_of_upstream_errors_are_ironed_out(server: Server, live: Portal, body: bytes, expected: str) -> None:
    async def script(call: Call) -> None:
        await call.reply(422, body)

    response = server.post(live.token(), ask(live.model(script)))
    assert response.status_code == 422
    error = response.json()["error"]
    assert error["message"] == expected and set(error) == {"message", "type", "param", "code"}
    assert error["code"] is None or isinstance(error["code"], str)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ["html", "empty", "cut-json", "error-in-200", "500", "redirect", "reset", "gzip"])
def test_garbage_from_upstream_is_a_502(server: Server, live: Portal, kind: str, stream: bool) -> None:
    async def script(call: Call) -> None:
        if kind == "html":
            await call.reply(200, b"<html>bad gateway</html>", {"content-type": "text/html"})
        elif kind == "empty":
            await call.reply(200, b"")
        elif kind == "cut-json":
            await call.reply(200, b'{"choices":[{"message":')
        elif kind == "error-in-200":
            await call.reply(200, {"error": {"message": "overloaded", "code": 500}})
        elif kind == "500":
            await call.error(500)
        elif kind == "redirect":
            await call.reply(302, b"", {"location": "http://127.0.0.1:1/"})
        elif kind == "reset":
            call.cut()
        else:
            await call.reply(200, b"\x1f\x8b\x08", {"content-encoding": "gzip"})

    model = live.model(script)
    response = server.post(live.token(), ask(model, stream=stream))
    check(response, 502, "server_error", "upstream_error")
    # A reset may hit kept connections, which are replaced twice at most.
    assert live.upstream.count(model) <= (3 if kind == "reset" else 1), "one key is tried once"
    assert live.record(response).end_reason == "upstream_error"


def test_unreachable_upstream(server: Server, live: Portal) -> None:
    channel = live.channel(f"http://127.0.0.1:{free_port()}/v1")
    response = server.post(live.token(), ask(live.model(channels=[channel])))
    check(response, 502, "server_error", "upstream_error")
    assert "cannot connect" in live.record(response).attempt_log[0]["detail"]


@pytest.mark.parametrize(("headers", "expected"), [({"retry-after": "7"}, "7"), ({"retry-after-ms": "1500"}, "2"), ({}, "5")])
def test_rate_limit_of_every_upstream_is_a_429_with_retry_after(server: Server, live: Portal, headers: dict[str, str], expected: str) -> None:
    async def script(call: Call) -> None:
        await call.error(429, "slow down", "rate_limit_exceeded", headers)

    response = server.post(live.token(), ask(live.model(script)))
    check(response, 429, "rate_limit_error", "rate_limit_exceeded")
    assert response.headers["retry-after"] == expected


def test_overloaded_upstream_is_a_503_with_retry_after(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.error(529, "overloaded", None, {"retry-after": "3"})

    response = server.post(live.token(), ask(live.model(script)))
    check(response, 503, "server_error", "no_available_channel")
    assert response.headers["retry-after"] == "3"


async def stall(call: Call) -> None:
    import asyncio

    await asyncio.sleep(60)


@pytest.mark.parametrize("stream", [False, True])
def test_first_byte_timeout(server: Server, live: Portal, stream: bool) -> None:
    model = live.model(stall, first_byte_timeout=1)
    began = time.monotonic()
    response = server.post(live.token(), ask(model, stream=stream))
    assert "first-byte timeout" in check(response, 504, "server_error", "upstream_timeout")
    assert time.monotonic() - began < 3
    assert live.upstream.last(model).closed.wait(1), "the upstream's connection is closed"
    assert live.record(response).end_reason == "timeout"


def test_idle_timeout_before_the_first_event(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        await call.open_stream()
        await call.send(b": thinking\n\n")
        await stall(call)

    response = server.post(live.token(), ask(live.model(script, idle_timeout=1), stream=True))
    assert "idle timeout" in check(response, 504, "server_error", "upstream_timeout")


def test_total_timeout(server: Server, live: Portal) -> None:
    async def script(call: Call) -> None:
        import asyncio

        await call.open_stream()
        for _ in range(100):
            await call.event(chunk("x"))
            await asyncio.sleep(0.1)

    response = server.post(live.token(), ask(live.model(script, total_timeout=1), stream=True))
    assert response.status_code == 200
    last = json.loads(response.text.strip().rsplit("data: ", 1)[1])
    assert last["error"]["code"] == "upstream_timeout" and "total timeout" in last["error"]["message"]
    assert "[DONE]" not in response.text


def test_channel_with_an_internal_address_is_never_used(server: Server, live: Portal) -> None:
    """However it got into the database."""
    for url in ("http://10.0.0.1/v1", "http://169.254.169.254/latest", "http://[::1]:80/v1", "http://0x7f000001/v1"):
        response = server.post(live.token(), ask(live.model(channels=[live.channel(url)])))
        check(response, 503, "server_error", "no_available_channel")


def test_guard_looks_at_the_address_that_a_name_stands_for_when_it_connects(live: Portal, tmp_path: Path) -> None:
    """`localhost` passes as a name; of its two ports only the permitted one is ever connected to."""
    inner = Upstream()
    try:
        with serving(tmp_path / "log", env={"AIRELAYS_UPSTREAM_ALLOW": f"127.0.0.1:{live.upstream.port}"}) as guarded:
            permitted = live.model(channels=[live.channel(f"http://localhost:{live.upstream.port}/v1")])
            refused = live.model(channels=[live.channel(f"http://localhost:{inner.port}/v1")])
            token = live.token()
            assert guarded.post(token, ask(permitted)).status_code == 200
            response = guarded.post(token, ask(refused))
            assert "not permitted" in check(response, 502, "server_error", "upstream_error")
            assert inner.calls == [] and "may not use" in live.record(response).attempt_log[0]["detail"]
    finally:
        inner.stop()


def test_websocket_handshake_on_v1_is_answered_426(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(
            b"GET /v1/responses HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 426")


def test_apps_are_told_the_administrators_remedy_after_the_message(live: Portal, server: Server) -> None:
    from relay.error_texts import explained, own_remedies
    from relay.models import ErrorText

    token = live.token()
    plain = server.post(token, ask("nothing-of-this-name")).json()["error"]["message"]
    built_in = explained("model_not_allowed")
    assert built_in is not None
    rows = [
        ErrorText.objects.create(code="model_not_found", language="zh-hans", remedy="请联系\n管理员。"),
        ErrorText.objects.create(code="model_not_found", language="en", remedy="Ask ops@example.org for models."),
        ErrorText.objects.create(code="model_not_allowed", language="en", meaning="Ours alone.", remedy=built_in.remedy),
    ]
    assert list(own_remedies()) == ["model_not_found"], "what is only repeated is not told twice"
    answer = server.post(token, ask("nothing-of-this-name"))
    assert answer.json()["error"]["message"] == f"{plain} Ask ops@example.org for models. 请联系 管理员。"
    for row in rows:
        row.delete()
    assert server.post(token, ask("nothing-of-this-name")).json()["error"]["message"] == plain
