"""Runs uvicorn: one worker in this process, several as processes of their own."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator
from typing import Any

import uvicorn
from django.conf import settings
from uvicorn.config import STARTUP_FAILURE

from portal import limits
from portal.installation import command
from portal.lib.processes import share_arena
from portal.metrics.server import MetricsServer
from portal.serving.http_protocol import HttpProtocol, WebSocketProtocol
from relay.gateway.runtime import current

_FLUSH_SECONDS = 15  # to send the last event and write the usage record


class CannotListen(Exception):
    """The address or port cannot be bound. The message says what to do."""


def check_port(host: str, port: int, setting: str = "") -> None:
    """Raise CannotListen if the port cannot be bound, so that the error comes before anything is set up.

    `setting`: that names the port, unless `serve --port` does.
    """
    if not 0 < port < 65536:
        raise CannotListen(f"{port} is not a port; choose one from 1 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotListen(_reason(host, port, error, setting)) from error


def _reason(host: str, port: int, error: OSError, setting: str) -> str:
    if setting:
        why = error.strerror or str(error)
        return f"cannot listen on {host}:{port} ({why}). Set {setting} to another port, or its host to another address."
    if error.errno == errno.EADDRINUSE:
        other = _serve("--port", str(port % 65535 + 1))
        return f"port {port} of {host} is in use by another program. Stop it, or choose another port: {other}"
    if error.errno == errno.EACCES:
        other = _serve("--port", "8080")
        return f"port {port} needs more rights than this user has. Choose one above 1023: {other}"
    return f"cannot listen on {host}:{port}: {error.strerror or error}. Set HOST to an address of this machine."


def _serve(*words: str) -> str:
    return command.here("serve", *words, data_dir=settings.DATA_DIR)


class _Server(uvicorn.Server):
    """uvicorn's server, with a callback for when it listens."""

    terminated = False  # by SIGTERM, once it has stopped

    def __init__(
        self, config: uvicorn.Config, ready: Callable[[], object], metrics: socket.socket | None = None
    ) -> None:
        """`metrics`: where they have a port of their own."""
        super().__init__(config)
        self._ready, self._metrics = ready, metrics
        self._beside: MetricsServer | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Do not raise the stop signal again after a clean shutdown, so that the process exits with 0."""
        with super().capture_signals():
            yield
            self.terminated = signal.SIGTERM in self._captured_signals
            self._captured_signals.clear()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            if self._metrics is not None:
                self._beside = MetricsServer(_place("metrics_application"), HttpProtocol, self._metrics)
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        run = current()
        if run is not None:  # its running requests may have been given another time than after a stop
            left = max(0.0, run.cut_at - time.monotonic())
            self.config.timeout_graceful_shutdown = round(left) + _FLUSH_SECONDS
        if self._beside is not None:
            await self._beside.close()
        await super().shutdown(sockets)


def run(host: str, port: int, ready: Callable[[], object] = lambda: None) -> bool:
    """Serve until SIGTERM or Ctrl-C; return when all records are written. Calls `ready` when the port is open.

    Returns whether it was ended by SIGTERM.
    """
    return _run(_Server(_config(host, port), ready, bind_metrics()), None)


def bind(host: str, port: int) -> socket.socket:
    """The socket on which several workers listen."""
    return _config(host, port).bind_socket()


def bind_metrics() -> socket.socket | None:
    """The same for the metrics' own port, None: they have none."""
    config = settings.CONFIG
    return bind(config.metrics_host, config.metrics_port) if config.metrics_port else None


def run_worker(listening: socket.socket, metrics: socket.socket | None, ready: Callable[[], object]) -> None:
    """Serve on sockets that the supervisor has bound."""
    _run(_Server(_config(settings.CONFIG.host, settings.CONFIG.port), ready, metrics), [listening])


def _run(server: _Server, sockets: list[socket.socket] | None) -> bool:
    share_arena()
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets)
    if not server.started:
        sys.exit(STARTUP_FAILURE)  # uvicorn has logged the reason
    return server.terminated


def _config(host: str, port: int) -> uvicorn.Config:
    options: dict[str, Any] = {
        "host": host,
        "port": port,
        "loop": "uvloop",
        "http": HttpProtocol,
        "ws": WebSocketProtocol,
        "lifespan": "on",
        "access_log": False,
        "log_config": None,  # Django has configured logging already
        "proxy_headers": False,  # portal.lib.net reads forwarding headers
        "server_header": False,
        "date_header": True,
        # The relay ends running requests after SHUTDOWN_SECONDS with an error event; this limit applies to connections
        # that do not read even that.
        "timeout_graceful_shutdown": round(settings.CONFIG.shutdown_seconds) + _FLUSH_SECONDS,
        "timeout_keep_alive": limits.KEEP_ALIVE_SECONDS,
        "ws_max_size": limits.WEBSOCKET_BYTES,
        "backlog": 2048,
    }
    return uvicorn.Config(_place(settings.ASGI_APPLICATION.rpartition(".")[2]), **options)


def _place(name: str) -> str:
    """Where an application is, beside that of the portal, in the form of uvicorn."""
    module: str = settings.ASGI_APPLICATION.rpartition(".")[0]
    return f"{module}:{name}"
