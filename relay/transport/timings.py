"""How long it takes to reach an upstream: its name, the connection, TLS. By the same guard as requests."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

import aiohttp

from portal.lib import net
from portal.lib.net import Allowance
from relay.transport.resolver import GuardedResolver, permit_literal

Phase = Literal["name", "tcp", "tls"]
_ADDRESSES: Final = 4  # of a name that are tried


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds by phase, as far as it came. A name that is an address takes none."""

    name: int | None = None
    tcp: int | None = None
    tls: int | None = None
    failed: Phase | None = None  # the phase that did not end well
    error: Exception | None = None  # why not


class AnswerTimer:
    """Measures how long an upstream takes from a connection to the head of its answer, whatever connecting took."""

    def __init__(self) -> None:
        self.milliseconds: int | None = None
        self._connected = 0.0
        self.trace = aiohttp.TraceConfig()
        self.trace.on_request_start.append(self._begin)
        self.trace.on_connection_create_end.append(self._begin)
        self.trace.on_request_end.append(self._end)

    async def _begin(self, session: object, context: object, step: object) -> None:
        self._connected = time.monotonic()

    async def _end(self, session: object, context: object, step: object) -> None:
        self.milliseconds = _since(self._connected)


async def measure(url: str, allowed: Sequence[Allowance], tls: ssl.SSLContext, seconds: float) -> Timings:
    """Connect to the host of a URL and leave. Each phase may take so long. Raises nothing that a network causes."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    found = Timings()
    try:
        async with asyncio.timeout(seconds):
            began = time.monotonic()
            addresses = await _addresses(host, port, allowed)
            found = Timings(name=None if net.parse_address(host) is not None else _since(began))
    except (OSError, TimeoutError) as error:
        return Timings(failed="name", error=error)
    began, connection = time.monotonic(), None
    try:
        async with asyncio.timeout(seconds):
            connection = await _connect(addresses, port)
            found = Timings(found.name, _since(began))
    except (OSError, TimeoutError) as error:
        return Timings(found.name, failed="tcp", error=error)
    if parts.scheme != "https":
        connection.close()
        return found
    began = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            await _handshake(connection, host, tls)
        return Timings(found.name, found.tcp, _since(began))
    except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
        return Timings(found.name, found.tcp, failed="tls", error=error)
    finally:
        connection.close()


async def _addresses(host: str, port: int, allowed: Sequence[Allowance]) -> list[str]:
    """The permitted addresses of a host. Raises OSError."""
    if net.parse_address(host) is not None:
        permit_literal(host, port, allowed)
        return [host]
    resolver = GuardedResolver(lambda: allowed)
    return [entry["host"] for entry in await resolver.resolve(host, port, socket.AF_UNSPEC)]


async def _connect(addresses: Sequence[str], port: int) -> socket.socket:
    """A connection to the first address that takes one. Raises OSError."""
    last: OSError | None = None
    loop = asyncio.get_running_loop()
    for address in addresses[:_ADDRESSES]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            await loop.sock_connect(connection, (address, port))
            return connection
        except BaseException as error:
            connection.close()
            if not isinstance(error, OSError):
                raise
            last = error
    raise last or OSError("the name stands for no address")


async def _handshake(connection: socket.socket, host: str, tls: ssl.SSLContext) -> None:
    _reader, writer = await asyncio.open_connection(sock=connection, ssl=tls, server_hostname=host)
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(1):
            await writer.wait_closed()


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
