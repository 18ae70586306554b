"""Streams read byte by byte, or in a thread of their own."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support.asserts import until
from tests.support.portal import ask
from tests.support.server import NO_CERTIFICATES, Server


@contextmanager
def running(server: Server, token: str, model: str) -> Iterator[dict[str, Any]]:
    """A stream in a thread of its own; what has come of it."""
    found: dict[str, Any] = {"text": ""}

    def read() -> None:
        with httpx.stream(
            "POST",
            server.url + "/v1/chat/completions",
            json=ask(model, stream=True),
            headers={"authorization": f"Bearer {token}"},
            timeout=100,
            trust_env=False,
            verify=NO_CERTIFICATES,
        ) as answer:
            found["id"], found["status"] = answer.headers["x-request-id"], answer.status_code
            for piece in answer.iter_text():
                found["text"] += piece
        found["ended"] = time.monotonic()

    server.catch_up()
    thread = threading.Thread(target=read)
    thread.start()
    until(lambda: found["text"])
    try:
        yield found
    finally:
        thread.join(100)
        assert not thread.is_alive()


@contextmanager
def raw_stream(
    server: Server, token: str, body: dict[str, object], path: str = "/v1/chat/completions"
) -> Iterator[socket.socket]:
    """A client that reads the answer's bytes itself, when it likes."""
    server.catch_up()
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: {len(data)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=100) as connection:
        connection.sendall(head.encode() + data)
        yield connection


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    seen = b""
    while mark not in seen:
        piece = connection.recv(65536)
        assert piece, f"closed before {mark!r}: {seen[-300:]!r}"
        seen += piece
    return seen


def request_id(head: bytes) -> str:
    return head.split(b"x-request-id: ", 1)[1].split(b"\r\n", 1)[0].decode()
