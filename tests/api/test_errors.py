"""Every error of a request that was let in: its status, its type and code, its headers, and that it says what to do."""

from __future__ import annotations

import json
import socket

from tests.support.asserts import check
from tests.support.portal import Portal, ask
from tests.support.server import Server, free_port


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
    check(response, 404, "invalid_request_error", "not_implemented")
    assert response.headers["x-should-retry"] == "false"
    response = server.get(live.token(), "/v1/chat/completions")
    check(response, 405, "invalid_request_error", "method_not_allowed")
    assert response.headers["allow"] == "POST"
    check(server.post(live.token(), {}, path="/"), 404, "invalid_request_error", "unknown_url")
    check(server.get(live.token(), "/mj/task/1/fetch"), 404, "invalid_request_error", "not_implemented")


def test_upstreams_are_not_named_to_users(server: Server, live: Portal) -> None:
    port = free_port()
    record = live.record(
        server.post(live.token(), ask(live.model(channels=[live.channel(f"http://127.0.0.1:{port}/v1")])))
    )
    assert str(port) in json.dumps(record.attempt_log), "staff see the cause"
    assert str(port) not in record.error_message and record.error_message


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
        ErrorText.objects.create(
            code="model_not_allowed", language="en", meaning="Ours alone.", remedy=built_in.remedy
        ),
    ]
    assert list(own_remedies()) == ["model_not_found"], "what is only repeated is not told twice"
    answer = server.post(token, ask("nothing-of-this-name"))
    assert answer.json()["error"]["message"] == f"{plain} Ask ops@example.org for models. 请联系 管理员。"
    for row in rows:
        row.delete()
    assert server.post(token, ask("nothing-of-this-name")).json()["error"]["message"] == plain
