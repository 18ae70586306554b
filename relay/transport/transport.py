"""The one way to an upstream: httpx over aiohttp, one transport per process and proxy, every connection checked by the SSRF guard.

The relay path calls the transport directly (`httpx.AsyncClient` costs 4 ms of CPU a request); tests of channels and model lists use
`httpx.AsyncClient` over the same kind of transport.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from httpx_aiohttp import AiohttpTransport
from multidict import CIMultiDict

from portal.lib import net
from portal.lib.net import Allowance

if TYPE_CHECKING:
    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

USER_AGENT: Final = "airelays-portal"


class NotPermitted(OSError):
    """Raised inside the resolver, which may raise OSError only."""


class ConnectRefused(httpx.ConnectError):
    """The SSRF guard refused the address that a host name stands for."""


class GuardedResolver(AbstractResolver):
    """Resolves names and lets only permitted addresses through, so that a name cannot be pointed elsewhere after it was saved."""

    def __init__(self, allowed: Callable[[], Sequence[Allowance]]) -> None:
        self._inner = aiohttp.ThreadedResolver()
        self._allowed = allowed

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        allowed = self._allowed()
        permitted = []
        for entry in found:
            address = net.parse_address(entry["host"])
            try:
                if address is not None:
                    net.permit(host, address, port, allowed)
                    permitted.append(entry)
            except net.Refused:
                continue
        if not permitted:
            raise NotPermitted(f"{host} stands for an address that channels may not use")
        return permitted

    async def close(self) -> None:
        await self._inner.close()


class UpstreamStream(httpx.AsyncByteStream):
    """The body of an answer, in pieces as they arrive."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._content = response.content

    async def read(self) -> bytes:
        """What has arrived, at least one byte; empty at the end of the body. Raises httpx.TransportError."""
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise httpx.ReadError(str(error)) from error

    def at_end(self) -> bool:
        """Whether the body has been read to its end."""
        return self._content.at_eof()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while chunk := await self.read():
            yield chunk

    def close(self) -> None:
        """Let the connection go: back to the pool when the body was read to its end, closed otherwise. Does not wait."""
        if self.at_end():
            self._response.release()
        else:
            self._response.close()

    async def aclose(self) -> None:
        self.close()


class UpstreamResponse(httpx.Response):
    """httpx's response with headers that are decoded only when somebody asks for them: a good answer's never are."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._raw_headers = response.raw_headers
        self._headers: httpx.Headers | None = None
        super().__init__(response.status, stream=UpstreamStream(response), extensions={"http_version": b"HTTP/1.1"})
        self.content_type = response.headers.get("content-type", "").lower()
        self.encoded = response.headers.get("content-encoding", "identity").lower() != "identity"

    @property
    def headers(self) -> httpx.Headers:
        if self._headers is None:
            self._headers = httpx.Headers(list(self._raw_headers))
        return self._headers

    @headers.setter
    def headers(self, value: httpx.Headers) -> None:
        """Set once by httpx, to nothing."""


Pieces = Sequence[bytes | memoryview]
_SLICE: Final = 256 * 1024  # bytes of a large body that are handed to the connection at once


class Body(httpx.AsyncByteStream):
    """A request's body that is in memory, whole or in pieces. A large one is sent slice by slice, so that no second copy of it waits in a buffer."""

    def __init__(self, content: bytes | Pieces) -> None:
        self.content = content
        self.size = len(content) if isinstance(content, bytes) else sum(map(len, content))

    def payload(self) -> bytes | AsyncIterator[bytes] | None:
        """What aiohttp sends; asked for again for each time that it is sent."""
        if isinstance(self.content, bytes) and self.size <= _SLICE:
            return self.content or None
        return self.__aiter__()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in (self.content,) if isinstance(self.content, bytes) else self.content:
            view = memoryview(piece)
            for start in range(0, len(view), _SLICE):
                yield bytes(view[start : start + _SLICE])


def request_headers(auth: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers of every request with one key, made once."""
    return CIMultiDict({"content-type": "application/json", "accept-encoding": "identity", "user-agent": USER_AGENT, **auth})


def post(url: httpx.URL, headers: Mapping[str, str], body: bytes | Pieces, connect_timeout: float) -> httpx.Request:
    """A request for `UpstreamTransport` (and the demo's), without the work that httpx does for requests of unknown make."""
    stream = Body(body)
    if not isinstance(body, bytes) or stream.size > _SLICE:
        headers = {**headers, "content-length": str(stream.size)}
    extensions = {"timeout": {"connect": connect_timeout}, "headers": headers}
    return httpx.Request("POST", url, stream=stream, extensions=extensions)


class Connector(aiohttp.TCPConnector):
    """aiohttp's connection pool, which leaves word whether a request got a connection that had been used before, and gives it a new one when it must have one."""

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        if _fresh.get():
            _reused.set(False)
            return None
        connection = await super()._get(key, traces)
        _reused.set(connection is not None)
        return connection


_reused: Final[ContextVar[bool]] = ContextVar("reused", default=False)
_fresh: Final[ContextVar[bool]] = ContextVar("fresh", default=False)
_STALE_SECONDS: Final = 1.0
MAX_FRAME: Final = 16 * 1024 * 1024 + 1  # bytes of a websocket message
_HEARTBEAT: Final = 30.0  # seconds


class UpstreamTransport(AiohttpTransport):
    """httpx-aiohttp's transport less what the relay does not need per request, with a body that can be dropped at once.

    An upstream may close a kept connection in the very moment in which a request is sent on it. When such a connection ends at once and
    without a byte of an answer, the request is sent again, on a new one: the others may have been closed with it.
    """

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        began = time.monotonic()
        _reused.set(False)
        try:
            return await self._send(request)
        except httpx.ReadError as error:
            stale = isinstance(error.__cause__, (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError))
            if not (stale and _reused.get()) or time.monotonic() - began > _STALE_SECONDS:
                raise
        token = _fresh.set(True)
        try:
            return await self._send(request)
        finally:
            _fresh.reset(token)

    async def connect_socket(self, url: str, headers: Mapping[str, str], connect_timeout: float) -> aiohttp.ClientWebSocketResponse:
        """A websocket to an upstream, checked by the same guard. Raises aiohttp.ClientError, OSError, TimeoutError."""
        if not isinstance(self.client, aiohttp.ClientSession):
            self.client = self.get_client()
        async with asyncio.timeout(2 * connect_timeout):
            return await self.client.ws_connect(
                url, headers=headers, protocols=("realtime",), autoclose=True, autoping=True, heartbeat=_HEARTBEAT, max_msg_size=MAX_FRAME,
                proxy=str(self.proxy.url) if self.proxy else None,
            )  # fmt: skip

    async def _send(self, request: httpx.Request) -> httpx.Response:
        if not isinstance(self.client, aiohttp.ClientSession):
            self.client = self.get_client()
        timeout: dict[str, Any] = request.extensions.get("timeout", {})
        body = request.stream.payload() if isinstance(request.stream, Body) else await request.aread() or None
        try:
            response = await self.client.request(
                request.method,
                str(request.url),
                headers=request.extensions.get("headers") or request.headers.multi_items(),
                data=body,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=timeout.get("pool"), sock_connect=timeout.get("connect"), sock_read=timeout.get("read")),
                proxy=str(self.proxy.url) if self.proxy else None,
            )
        except (TimeoutError, aiohttp.ServerTimeoutError) as error:
            if isinstance(error, aiohttp.SocketTimeoutError):
                raise httpx.ReadTimeout(str(error)) from error
            raise httpx.ConnectTimeout("the connection was not made in time") from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, NotPermitted):
                raise ConnectRefused(str(error.os_error)) from error
            raise httpx.ConnectError(str(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise httpx.ReadError(str(error)) from error
        return UpstreamResponse(response)


class Upstreams:
    """The transports of one event loop."""

    def __init__(self, allowed: Callable[[], Sequence[Allowance]], connections: int, ca_file: str = "") -> None:
        self._allowed, self._connections = allowed, connections
        self._transports: dict[str, UpstreamTransport] = {}
        self._ssl = ssl.create_default_context(cafile=ca_file or None)
        if ca_file:
            self._ssl.load_default_certs()

    def transport(self, proxy: str = "") -> UpstreamTransport:
        found = self._transports.get(proxy)
        if found is None:
            found = self._transports[proxy] = UpstreamTransport(verify=self._ssl, proxy=httpx.Proxy(proxy) if proxy else None, client=self._session, trust_env=False)
        return found

    def _session(self) -> aiohttp.ClientSession:
        connector = Connector(
            resolver=GuardedResolver(self._allowed),
            limit=self._connections,
            ssl=self._ssl,
            ttl_dns_cache=30,
            keepalive_timeout=30,  # below the idle limit of common servers, so that a kept connection is rarely a dead one
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
        )

    async def close(self) -> None:
        for transport in self._transports.values():
            await transport.aclose()
        self._transports.clear()
