"""The server of the metrics' own port, beside that of the portal and in the same event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator
from typing import Any, Final

import uvicorn

_STOP_SECONDS: Final = 2.0  # that a scrape has to end


class _Server(uvicorn.Server):
    """Leaves signals to the portal's server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class MetricsServer:
    """Serves an application on a socket, until it is closed."""

    def __init__(self, app: Any, protocol: Any, listening: socket.socket) -> None:
        """`app`: or where it is, `module:name`. `protocol`: uvicorn's for HTTP, with the portal's limits."""
        config = uvicorn.Config(
            app, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False,
            server_header=False, timeout_graceful_shutdown=round(_STOP_SECONDS),
        )  # fmt: skip
        self._server = _Server(config)
        self._task = asyncio.ensure_future(self._server.serve([listening]))

    async def close(self) -> None:
        self._server.should_exit = True
        await asyncio.wait((self._task,), timeout=_STOP_SECONDS)
