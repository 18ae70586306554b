"""Connection pools to upstreams: one per process and proxy."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
import httpx

from portal import limits
from portal.lib import net
from portal.lib.net import Allowance
from portal.lib.redaction.sent import sent
from relay.transport.connection import HEADER_BYTES, HEADER_FIELDS, UpstreamConnection
from relay.transport.resolver import GuardedResolver, permit_literal
from relay.transport.transport import UpstreamTransport, _fresh, _reaching, _reused

if TYPE_CHECKING:
    from aiohttp.abc import ResolveResult
    from aiohttp.client_reqrep import ClientRequest, ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace


# aiohttp reads the certificates of the world twice, for requests whose connections name none: 2 MiB. Here all do, those
# of `Upstreams`; one that did not could verify nothing, and would fail.
aiohttp.connector._SSL_CONTEXT_VERIFIED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
aiohttp.connector._SSL_CONTEXT_UNVERIFIED = aiohttp.connector._SSL_CONTEXT_VERIFIED


class Connector(aiohttp.TCPConnector):
    """aiohttp's connection pool behind the guard, which can also force a new connection.

    It records whether a request reused a connection, and tells it when it has one.
    """

    def __init__(self, allowed: Callable[[], Sequence[Allowance]], connections: int, tls: ssl.SSLContext) -> None:
        super().__init__(
            resolver=GuardedResolver(allowed),
            limit=connections,
            ssl=tls,
            ttl_dns_cache=30,
            keepalive_timeout=30,  # seconds; below the idle limit of common servers, so that few reused ones are dead
        )
        self._allowed = allowed
        self.waiting = 0  # requests that wait for a connection
        self.refused = 0  # that have got none in time
        self._factory = partial(UpstreamConnection, loop=self._loop)  # type: ignore[assignment]  # a subclass of it

    async def _resolve_host(self, host: str, port: int, traces: Sequence[Trace] | None = None) -> list[ResolveResult]:
        """Check addresses that are written out as well: aiohttp asks its resolver for names only."""
        if net.parse_address(host) is not None:
            permit_literal(host, port, self._allowed())
        return await super()._resolve_host(host, port, traces)

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        if _fresh.get():
            _reused.set(False)
            return None
        connection = await super()._get(key, traces)
        _reused.set(connection is not None)
        return connection

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # as aiohttp has it
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        reached = _reaching.get()
        if reached is not None:
            reached()
        return connection

    async def _wait_for_available_connection(self, key: ConnectionKey, traces: list[Trace]) -> None:
        """Wait until a connection is free, for a while. Raises httpx.PoolTimeout."""
        if self.waiting >= limits.UPSTREAM_WAITING:
            self.refused += 1
            raise httpx.PoolTimeout(f"{self.waiting} requests wait for one of {self.limit} connections already")
        self.waiting += 1
        try:
            async with asyncio.timeout(limits.UPSTREAM_WAIT_SECONDS):
                await super()._wait_for_available_connection(key, traces)
        except TimeoutError:
            self.refused += 1
            said = f"none of {self.limit} connections became free in {limits.UPSTREAM_WAIT_SECONDS:.0f} s"
            raise httpx.PoolTimeout(said) from None
        finally:
            self.waiting -= 1


class Upstreams:
    """The transports of one event loop."""

    def __init__(
        self,
        allowed: Callable[[], Sequence[Allowance]],
        connections: int,
        ca_file: str = "",
        traces: Sequence[aiohttp.TraceConfig] = (),
    ) -> None:
        """`traces`: are told of each step of a request, for single ones that are measured."""
        self._allowed, self._connections, self._traces = allowed, connections, traces
        self._transports: dict[str, UpstreamTransport] = {}
        self._ssl = ssl.create_default_context(cafile=ca_file or None)
        if ca_file:
            self._ssl.load_default_certs()

    def transport(self, proxy: str = "") -> UpstreamTransport:
        found = self._transports.get(proxy)
        if found is None:
            if proxy:
                address = httpx.URL(proxy)
                sent.remember_address(address.host)
                sent.remember_login(address.username, address.password)
            found = self._transports[proxy] = UpstreamTransport(
                verify=self._ssl, proxy=httpx.Proxy(proxy) if proxy else None, client=self._session, trust_env=False
            )
        return found

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=Connector(self._allowed, self._connections, self._ssl),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # `relay.transport.encoding` does it, with a limit
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            max_headers=HEADER_FIELDS,
            trace_configs=list(self._traces) or None,
        )

    def counts(self) -> dict[str, int]:
        """Connections in use, the most there may be, requests that wait for one, and those that have got none."""
        made = [transport.client for transport in self._transports.values()]
        pools = [one.connector for one in made if isinstance(one, aiohttp.ClientSession)]
        found = [one for one in pools if isinstance(one, Connector)]
        return {
            "upstream_connections": sum(len(one._acquired) for one in found),
            "upstream_most": self._connections,
            "upstream_waiting": sum(one.waiting for one in found),
            "upstream_refused": sum(one.refused for one in found),
        }

    async def close(self) -> None:
        for transport in self._transports.values():
            await transport.aclose()
        self._transports.clear()
