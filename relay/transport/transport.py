"""Sends requests to upstreams: httpx over aiohttp, one transport per process and proxy, behind the SSRF guard.

The relay path calls the transport directly, because `httpx.AsyncClient` costs 4 ms of CPU per request; tests of
channels and model lists use `httpx.AsyncClient` over the same kind of transport.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final, NamedTuple

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from multidict import CIMultiDict

from portal.lib.redaction.sent import sent
from relay.transport.body import REACHED, RESEND, RESENT, Body, Post, Reach, SessionStream, UpstreamResponse
from relay.transport.connection import DirectStream, Target, UpstreamConnection, head_of, target_of
from relay.transport.resolver import ConnectRefused, NotPermitted

_reused: Final[ContextVar[bool]] = ContextVar("reused", default=False)  # the request got a pooled connection
_fresh: Final[ContextVar[bool]] = ContextVar("fresh", default=False)  # the request needs a new connection
_reaching: Final[ContextVar[Reach | None]] = ContextVar("reaching", default=None)  # as REACHED has it
_STALE_SECONDS: Final = 1.0  # a reused connection that fails later than this was not stale
MAX_FRAME: Final = 16 * 1024 * 1024 + 1  # bytes of a websocket message
_HEARTBEAT: Final = 30.0  # seconds
_MOST_ADDRESSES: Final = 1024


class _Told(NamedTuple):
    """What has been remembered of the requests to a URL with the headers of a key."""

    url: httpx.URL
    headers: CIMultiDict[str]
    text: str  # the URL
    head: bytes | None  # of requests without the session


@lru_cache(maxsize=256)
def _timeouts(pool: float | None, connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=pool, sock_connect=connect, sock_read=read)


async def _refuse_redirect(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """A middleware for websockets, whose handshake aiohttp would follow anywhere."""
    response = await handler(request)
    if 300 <= response.status < 400:
        response.close()
        raise aiohttp.WSServerHandshakeError(
            response.request_info,
            response.history,
            message="a redirect, which is not followed",
            status=response.status,
            headers=response.headers,
        )
    return response


class UpstreamTransport(AiohttpTransport):
    """httpx-aiohttp's transport without the per-request work that the relay does not need.

    An upstream may close a pooled connection at the moment when a request is sent on it. When such a connection ends
    immediately and without a byte of an answer, the request is sent again on a new connection: the other pooled ones
    may have been closed as well. The upstream may have read it all the same, and POST is not idempotent (RFC 9110,
    9.2.2), so the request says whether that may be (`RESEND`), and is told that it was (`RESENT`).
    """

    _sockets: aiohttp.ClientSession | None = None  # for websockets, on the connections of the client

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._addresses: dict[tuple[int, int], _Told] = {}  # by the ids of a URL and the headers of a key
        self._cleared = sent.cleared
        self._targets: dict[str, Target | None] = {}
        self._proxy = str(self.proxy.url) if self.proxy else None

    async def aclose(self) -> None:
        if self._sockets is not None:
            await self._sockets.close()
        await super().aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        began = time.monotonic()
        _reused.set(False)
        _reaching.set(request.extensions.get(REACHED))
        try:
            return await self._send(request)
        except httpx.ReadError as error:
            stale = isinstance(
                error.__cause__, (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError)
            )
            late = time.monotonic() - began > _STALE_SECONDS
            if late or not (stale and _reused.get() and request.extensions.get(RESEND, True)):
                raise
        request.extensions[RESENT] = True
        token = _fresh.set(True)
        try:
            return await self._send(request)
        finally:
            _fresh.reset(token)

    async def connect_socket(
        self, url: str, headers: Mapping[str, str], connect_timeout: float
    ) -> aiohttp.ClientWebSocketResponse:
        """Open a websocket to an upstream, behind the same guard. Follows no redirect, as for other requests.

        Raises aiohttp.ClientError, OSError, TimeoutError.
        """
        self._remember(httpx.URL(url), headers.items())
        _reaching.set(None)
        if not isinstance(self.client, aiohttp.ClientSession):
            self.client = self.get_client()
        if self._sockets is None or self._sockets.closed:
            self._sockets = aiohttp.ClientSession(
                connector=self.client.connector,
                connector_owner=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                middlewares=(_refuse_redirect,),
            )
        try:
            async with asyncio.timeout(2 * connect_timeout):
                return await self._sockets.ws_connect(
                    url,
                    headers=headers,
                    protocols=("realtime",),
                    autoclose=True,
                    autoping=True,
                    heartbeat=_HEARTBEAT,
                    max_msg_size=MAX_FRAME,
                    proxy=self._proxy,
                )
        except httpx.PoolTimeout as crowded:
            raise TimeoutError(str(crowded)) from None

    @staticmethod
    def _remember(url: httpx.URL, headers: Iterable[tuple[str, str]]) -> None:
        """What is sent is found in all that is said of it later (`portal.lib.redaction`)."""
        sent.remember(headers)
        sent.remember_address(url.host, url.path)

    def _told(self, url: httpx.URL, headers: Mapping[str, str] | None) -> _Told | None:
        """What is known of these very objects, if they have been remembered, as those of a channel and a key have."""
        if self._cleared != sent.cleared:
            self._addresses, self._cleared = {}, sent.cleared
        told = self._addresses.get((id(url), id(headers)))
        return told if told is not None and told.url is url and told.headers is headers else None

    def _keep(self, url: httpx.URL, headers: CIMultiDict[str], text: str) -> None:
        if len(self._addresses) >= _MOST_ADDRESSES:
            self._addresses.clear()
        target = self._target(text)
        head = head_of(target, headers.items()) if target is not None else None
        self._addresses[id(url), id(headers)] = _Told(url, headers, text, head)

    def _target(self, text: str) -> Target | None:
        """Where requests without the session go; None: this one is the session's. Raises ValueError."""
        if text not in self._targets:
            if len(self._targets) >= _MOST_ADDRESSES:
                self._targets.clear()
            session = self.client
            assert isinstance(session, aiohttp.ClientSession)  # noqa: S101  # `_send` has made it
            # A session with traces is measured.
            direct = self._proxy is None and not session.trace_configs
            self._targets[text] = target_of(text, asyncio.get_running_loop()) if direct else None
        return self._targets[text]

    async def _send(self, request: httpx.Request) -> httpx.Response:
        if not isinstance(self.client, aiohttp.ClientSession):
            self.client = self.get_client()
        timeout: dict[str, Any] = request.extensions.get("timeout", {})
        headers = request.extensions.get("headers")
        told = self._told(request.url, headers)
        if told is not None:
            address, head = told.text, told.head
        else:
            self._remember(request.url, headers.items() if headers else request.headers.multi_items())
            address, head = str(request.url), None
            if isinstance(headers, CIMultiDict):  # those of a key, which its requests share
                self._keep(request.url, headers, address)
        try:
            if isinstance(request, Post) and headers and (content := request.stream.in_one_piece) is not None:
                target = self._target(address)
                if target is not None and (head := head or head_of(target, headers.items())) is not None:
                    return await self._send_direct(target, head, content, timeout.get("connect"))
            body = request.stream.payload() if isinstance(request.stream, Body) else await request.aread() or None
            response = await self.client.request(
                request.method,
                address,
                headers=headers or request.headers.multi_items(),
                data=body,
                allow_redirects=False,
                timeout=_timeouts(timeout.get("pool"), timeout.get("connect"), timeout.get("read")),
                proxy=self._proxy,
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
        return UpstreamResponse(response.status, response.raw_headers, SessionStream(response))

    async def _send_direct(self, target: Target, head: bytes, body: bytes, connect: float | None) -> UpstreamResponse:
        """Send a request without the session. Raises what the session raises."""
        connector: aiohttp.BaseConnector = self.client.connector  # type: ignore[union-attr,assignment]  # of a session
        connection = await connector._get(target.key, [])
        if connection is None:
            connection = await connector.connect(target.request, [], _timeouts(None, connect, None))
        elif (reached := _reaching.get()) is not None:  # otherwise the connector has told it
            reached()
        protocol = connection.protocol
        if not isinstance(protocol, UpstreamConnection):
            connection.close()
            raise aiohttp.ServerDisconnectedError
        answer = DirectStream(connection, protocol._loop)
        try:
            protocol.request(answer, b"%b%d\r\n\r\n%b" % (head, len(body), body))
            await answer.head()
        except BaseException:
            answer.close()
            raise
        return UpstreamResponse(answer.status, answer.fields, answer)
