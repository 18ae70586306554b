"""Waits on this machine for the browser to come back from a sign-in.

A visit with another state is answered with an error, and the wait goes on: any page may send a browser here.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from portal.lib.texts import gettext_noop
from relay.providers.plans.login import CALLBACK_PATH, LoginFailed

_DONE: Final = (
    b"<!doctype html><meta charset=utf-8><title>AIRelays</title><p>Back at AIRelays. You can close this page."
)
_WRONG: Final = b"This address belongs to no sign-in that runs here."
_MOST: Final = 8000  # characters of an address


class Callback:
    """A listener on a port of the loopback addresses."""

    def __init__(self, port: int) -> None:
        """Raises OSError when the port is taken."""
        self._state, self._address, self._came = "", "", threading.Event()
        self._servers = [_Server(("127.0.0.1", port), self)]
        self.port = self._servers[0].server_address[1]
        try:
            self._servers.append(_Server6(("::1", self.port), self))  # `localhost` may stand for either
        except OSError:
            pass  # there is no IPv6 here
        for server in self._servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def expect(self, state: str) -> None:
        """Take the browser that comes back with this state. To be called before anybody can send it."""
        self._state = state

    def wait(self, seconds: float) -> str | None:
        """The address that the browser came to; None: it did not in time."""
        return self._address if self._came.wait(seconds) else None

    def visited(self, path: str) -> tuple[int, bytes]:
        """What a browser is answered that comes to a path."""
        parts = urlsplit(path)
        given = parse_qs(parts.query, max_num_fields=30).get("state", [""])[0] if len(path) <= _MOST else ""
        if parts.path != CALLBACK_PATH:
            return 404, _WRONG
        if not self._state or not secrets.compare_digest(given.encode(), self._state.encode()):
            return 400, _WRONG
        self._address = path
        self._came.set()
        return 200, _DONE

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], callback: Callback) -> None:
        self.callback = callback
        super().__init__(address, _Handler)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10

    def do_GET(self) -> None:
        try:
            status, body = self.server.callback.visited(self.path)
        except ValueError:
            status, body = 400, _WRONG
        self.send_response(status)
        self.send_header("content-type", "text/html; charset=utf-8" if status == 200 else "text/plain")
        self.send_header("content-length", str(len(body)))
        self.send_header("referrer-policy", "no-referrer")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """The address has a code in it."""


@contextmanager
def listening(port: int) -> Iterator[Callback]:
    """Listen on a port, 0: any free one. Raises LoginFailed when it is taken."""
    try:
        callback = Callback(port)
    except OSError:
        raise LoginFailed(
            gettext_noop("The port %(port)s is taken, to which the issuer sends the browser back. Free it first."),
            port=str(port),
        ) from None
    try:
        yield callback
    finally:
        callback.close()
