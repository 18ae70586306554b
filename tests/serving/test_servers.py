"""Other ways to run it: Daphne, Django's runserver."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from daphne import ws_protocol
from twisted.internet.testing import StringTransport

from portal import limits
from portal.serving.daphne import WebSocketProtocol
from tests.support.portal import Portal, ask
from tests.support.server import free_port, serving
from tests.support.sessions import signed_in


@pytest.mark.parametrize("how", ["daphne", "runserver"])
def test_daphne_serves_the_same(live: Portal, tmp_path: Path, how: str) -> None:
    port = free_port()
    daphne = [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "portal.asgi:application"]
    command = (
        daphne if how == "daphne" else [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
    )
    model, token = live.model(), live.token()
    cookie = f"sessionid={signed_in(live.user(is_staff=True, is_superuser=True)).cookies['sessionid'].value}"
    with serving(tmp_path / "log", port=port, command=command) as server:
        headers = {"authorization": f"Bearer {token}"}
        with httpx.stream(
            "POST",
            f"{server.v1}/chat/completions",
            json=ask(model, stream=True),
            headers=headers,
            trust_env=False,
            timeout=20,
        ) as response:
            text = response.read().decode()
        assert response.status_code == 200 and text.endswith("data: [DONE]\n\n")
        assert live.record(response).end_reason == "completed"
        assert (
            httpx.post(
                f"{server.v1}/chat/completions", json=ask("none"), headers=headers, trust_env=False, timeout=60
            ).status_code
            == 404
        )
        assert httpx.get(f"{server.url}/accounts/login/", trust_env=False, timeout=60).status_code == 200
        for request, status in _TOO_MUCH:
            assert _answer(port, request).startswith(b"HTTP/1.1 %d " % status), request[:60]
        for frame in (b"\x89\x80\0\0\0\0", b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 5_000):  # pings, parts
            with _websocket(port, cookie) as websocket:
                with contextlib.suppress(OSError):
                    websocket.sendall(frame * 5_000 if len(frame) < 10 else frame)
                received = _all_of(websocket)
            assert _POLICY in received and received.count(b"\x8a\x00") <= 3 * limits.WEBSOCKET_FRAMES
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_daphne_keeps_little_of_a_websocket_before_it_is_accepted() -> None:
    make_factory: Any = ws_protocol.WebSocketFactory
    make_transport: Any = StringTransport
    factory, transport = make_factory(None), make_transport()
    transport.registerProducer(transport, streaming=True)
    factory.protocol = WebSocketProtocol
    protocol = factory.buildProtocol(None)
    protocol.makeConnection(transport)
    protocol.dataReceived(b"GET /v1/realtime HTTP/1.1\r\n")
    protocol.dataReceived(b"x" * limits.WEBSOCKET_EARLY_BYTES)
    assert protocol.state == protocol.STATE_CONNECTING
    protocol.dataReceived(b"x")
    assert protocol.state == protocol.STATE_CLOSED


def _websocket(port: int, cookie: str) -> socket.socket:
    """A connection to a live page that has been accepted."""
    connection = socket.create_connection(("127.0.0.1", port), 30)
    connection.sendall(
        b"GET /live/running HTTP/1.1\r\nhost: localhost\r\norigin: http://localhost\r\nupgrade: websocket\r\n"
        b"connection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"cookie: %b\r\n\r\n" % cookie.encode()
    )
    assert connection.recv(4096).startswith(b"HTTP/1.1 101 ")
    return connection


def _all_of(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(OSError):
        while piece := connection.recv(65_536):
            received += piece
    return received


_POLICY = b"\x03\xf0"  # 1008
_CHUNKED = b" HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
_TOO_MUCH = (
    (b"GET /healthz HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n", 400),
    (b"GET /healthz HTTP/1.1\r\n" + b"x: " + b"y" * 60_000 + b"\r\nz: " + b"y" * 10_000 + b"\r\n\r\n", 400),
    (b"GET /" + b"y" * 20_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 414),
    (b"POST /healthz" + _CHUNKED + b"1\r\nx\r\n", 413),
    (b"POST /accounts/login/ HTTP/1.1\r\nhost: localhost\r\ncontent-length: 999999999\r\n\r\n", 413),
    (b"POST /accounts/login/" + _CHUNKED + b"1\r\nx\r\n" * 2_000, 400),
    (b"POST /accounts/login/" + _CHUNKED + (b"10000\r\n" + b"x" * 65_536 + b"\r\n") * 70, 413),
    (b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 999999999\r\n\r\n", 413),
)


def _answer(port: int, request: bytes) -> bytes:
    """What a server says to bytes, of which it may not take all."""
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(request)
        return connection.recv(65_536)
