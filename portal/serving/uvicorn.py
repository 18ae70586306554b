"""Runs uvicorn: one worker in this process, several as processes that uvicorn supervises."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys
from collections.abc import Callable, Generator
from typing import Any

import uvicorn
from django.conf import settings
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_FLUSH_SECONDS = 15  # to send the last event and write the usage record


class CannotListen(Exception):
    """The address or port cannot be bound. The message says what to do."""


def check_port(host: str, port: int) -> None:
    """Raise CannotListen if the port cannot be bound, so that the error comes before anything is set up."""
    if not 0 < port < 65536:
        raise CannotListen(f"{port} is not a port; choose one from 1 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotListen(_reason(host, port, error)) from error


def _reason(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is in use by another program. Stop it, or choose another port: PORT={port + 1} "
            "make run"
        )
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has. Choose one above 1023: PORT=8080 make run"
    return f"cannot listen on {host}:{port}: {error.strerror or error}. Set HOST to an address of this machine."


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP, without chunked coding for clients of HTTP/1.0, which read a body until the connection closes.

    RFC 9112, 6.1, forbids chunks for them. nginx speaks HTTP/1.0 to the servers behind it unless told otherwise.
    """

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        unframed = cycle.scope["http_version"] == "1.0"
        super()._start_asgi_task(cycle, _without_chunks(cycle, app) if unframed else app)


def _without_chunks(cycle: RequestResponseCycle, app: Any) -> Any:
    """The application, whose bodies of unknown length end with the connection; uvicorn closes it after HTTP/1.0."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        framed = True

        async def send_plain(message: Any) -> None:
            nonlocal framed
            if message["type"] == "http.response.start":
                framed = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
                if not framed:
                    cycle.chunked_encoding = False
            elif not framed:
                cycle.expected_content_length = len(message.get("body", b""))  # uvicorn would demand a length otherwise
            await send(message)

        await app(scope, receive, send_plain)

    return call


class _Server(uvicorn.Server):
    """uvicorn's server, with a callback for when it listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Do not raise the stop signal again after a clean shutdown, so that the process exits with 0."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def run(host: str, port: int, workers: int, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until SIGTERM or Ctrl-C; return when all records are written. Calls `ready` when the port is open."""
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "workers": workers,
        "loop": "uvloop",
        "http": HttpProtocol,
        "ws": "websockets-sansio",
        "lifespan": "on",
        "access_log": False,
        "log_config": None,  # Django has configured logging already
        "proxy_headers": False,  # portal.lib.net reads forwarding headers
        "server_header": False,
        "date_header": True,
        # The relay ends running requests after SHUTDOWN_SECONDS with an error event; this limit applies to connections
        # that do not read even that.
        "timeout_graceful_shutdown": round(settings.CONFIG.shutdown_seconds) + _FLUSH_SECONDS,
        "timeout_keep_alive": 75,
        "ws_max_size": 16 * 1024 * 1024,
        "backlog": 2048,
    }
    if workers > 1:
        ready()  # the workers are separate processes and listen shortly
        uvicorn.run("portal.asgi:application", **options)
        return
    server = _Server(uvicorn.Config("portal.asgi:application", **options), ready)
    try:
        server.run()
    except KeyboardInterrupt:
        pass
    if not server.started:
        sys.exit(3)  # uvicorn has logged the reason
