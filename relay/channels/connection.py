"""Connections to the upstream of one channel for single requests, within the time that they may take."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Final
from urllib.parse import urlsplit

import httpx
from django.conf import settings
from django.utils.translation import gettext as _

from portal import limits
from portal.lib.net import Allowance
from portal.lib.redaction.redact import redact
from portal.lib.texts import reason
from portal.services.outside import NotAnswering, waiting_for
from relay.models import Channel
from relay.providers.credentials.contract import Signer
from relay.providers.credentials.signing import SigningTransport
from relay.providers.demo import DemoTransport
from relay.providers.vendors import BUILT_IN
from relay.transport.pool import Upstreams
from relay.transport.resolver import ConnectRefused
from relay.transport.timings import AnswerTimer

_MOST_SECONDS: Final = 90.0  # of one request
_seconds: Final[ContextVar[float]] = ContextVar("seconds", default=_MOST_SECONDS)  # of the one that is made
_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)
# How OpenSSL says, by its version, that what answers is no TLS.
_PLAIN_HTTP: Final = re.compile(r"wrong.version.number|record.layer.failure|http.request", re.IGNORECASE)


@contextmanager
def waiting_for_upstream(channel: Channel) -> Iterator[None]:
    """Inside, the upstream of a channel is asked, of a page in the time that it has left. Raises NotAnswering."""
    with waiting_for(f"the upstream {urlsplit(channel.effective_base_url).netloc}", _MOST_SECONDS) as seconds:
        token = _seconds.set(seconds)
        try:
            yield
        finally:
            _seconds.reset(token)


@asynccontextmanager
async def client_of(
    channel: Channel, allowed: Sequence[Allowance], signer: Signer | None = None, timer: AnswerTimer | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield an HTTP client for one channel, with the channel's base URL and proxy. Limits the time of its use.

    `signer`: signs its requests, where their headers do not. `timer`: measures its request.
    """
    traces = (timer.trace,) if timer is not None else ()
    upstreams = Upstreams(lambda: allowed, 4, settings.CONFIG.upstream_ca_file, traces)
    transport: httpx.AsyncBaseTransport = (
        DemoTransport()
        if channel.provider in BUILT_IN
        else SigningTransport(upstreams.transport(channel.proxy_url), signer)
    )
    bounded = _Bounded(transport)
    base = "http://demo.invalid" if channel.provider in BUILT_IN else channel.effective_base_url
    try:
        async with (
            asyncio.timeout(_seconds.get()),
            httpx.AsyncClient(base_url=base, transport=bounded, timeout=_TIMEOUT, follow_redirects=False) as client,
        ):
            yield client
    finally:
        await upstreams.close()


class _Bounded(httpx.AsyncBaseTransport):
    """Breaks off answers that are too long: they are read as a whole, and their servers may be anybody's."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._transport.handle_async_request(request)
        if isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = _BoundedStream(response.stream)
        return response


class _BoundedStream(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size += len(piece)
            if size > limits.LIST_BYTES:
                raise httpx.ReadError(f"the answer has more than {limits.LIST_BYTES // limits.MIB} MiB")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


def why_unreachable(error: Exception) -> str:
    """Say to a person why a request had no answer."""
    if isinstance(error, ConnectRefused):
        return _(
            "The host name stands for an address that channels may not use. A superuser can allow it under “Allowed "
            "upstream addresses”."
        )
    if isinstance(error, (httpx.TimeoutException, TimeoutError, NotAnswering)):
        return _("The upstream did not answer in time. Check the base URL, the firewall and the proxy.")
    said = redact(reason(error)) if str(error) else ""
    if _PLAIN_HTTP.search(said):
        return _("This address speaks plain HTTP, not HTTPS: write http:// at the beginning of the base URL.")
    if isinstance(error, httpx.ConnectError):
        return _("The upstream cannot be reached: %(error)s. Check the base URL and that the upstream runs.") % {
            "error": said
        }
    return _("The connection failed: %(error)s.") % {"error": said or type(error).__name__}
