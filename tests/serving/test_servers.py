"""Other ways to run it: Daphne, Django's runserver."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.portal import Portal, ask
from tests.support.server import free_port, serving


@pytest.mark.parametrize("how", ["daphne", "runserver"])
def test_daphne_serves_the_same(live: Portal, tmp_path: Path, how: str) -> None:
    port = free_port()
    daphne = [sys.executable, "-m", "daphne", "-b", "127.0.0.1", "-p", str(port), "portal.asgi:application"]
    command = (
        daphne if how == "daphne" else [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}"]
    )
    model, token = live.model(), live.token()
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
    assert "Traceback" not in (tmp_path / "log").read_text()


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
