"""Reads the body of an upstream's answer within the exchange's timeouts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Final, Protocol

import httpx

from portal import limits
from portal.lib.processes import raise_descriptors
from portal.lib.redaction.verbatim import kept_words
from relay.errors import RelayError, RelayUnavailable, UpstreamFailed, UpstreamRefused, UpstreamTimeout
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.interrupts import Ended, Interrupt
from relay.gateway.snapshot.views import ChannelView
from relay.providers.apis import model_in_path
from relay.providers.classify import Failure
from relay.providers.failures import FailureClass
from relay.providers.plan_requests.transport import PlanRefused
from relay.providers.vendors import PUBLIC_HOSTS, VENDORS
from relay.transport.body import UpstreamResponse, UpstreamStream
from relay.transport.resolver import ConnectRefused

logger: Final = logging.getLogger(__name__)
_BOM: Final = b"\xef\xbb\xbf"  # servers on Windows write it before JSON
BROKEN: Final = "The connection to the upstream broke. Try again."
GARBAGE: Final = "The upstream's answer made no sense. Try again; if it keeps happening, try another model."


_UNREACHABLE: Final = "The upstream could not be reached. Try again; if it keeps failing, try another model."
_MODEL: Final = b"%7Bmodel%7D"  # in the path of an API whose addresses name the model


def with_model(url: httpx.URL, model: str) -> httpx.URL:
    """The address of an API with the upstream's name of a model in it, where it has a place for one."""
    path = url.raw_path
    if _MODEL not in path:
        return url
    return url.copy_with(raw_path=path.replace(_MODEL, model_in_path(model).encode(), 1))


# Failures that are told in the upstream's own words where the client speaks its API.
_TOLD_AS_IT_IS: Final = frozenset((
    FailureClass.CLIENT, FailureClass.CONTENT, FailureClass.TOO_LARGE, FailureClass.RATE, FailureClass.OVERLOAD,
    FailureClass.TRANSIENT,
))  # fmt: skip
_LIMITED: Final = b'"rate_limit_error"'  # whose messages name accounts
# Statuses that would be about the client's own token or money.
_OF_THE_CLIENT: Final = frozenset((401, 402, 403))


def keep_words(failure: Failure, status: int, body: bytes, secret: str, official: bool) -> None:
    """Let the client read the upstream's own status and body, whose wording it knows, unless they are about an account.

    `secret`: the portal's key, which is left out. `official`: the upstream is at the vendor's own address.
    """
    if failure.kind not in _TOLD_AS_IT_IS or failure.ordered or status in _OF_THE_CLIENT or status < 400:
        return
    told = kept_words(body, (secret,), official, failure.kind is FailureClass.RATE, PUBLIC_HOSTS)
    if told:
        failure.error.verbatim, failure.error.http_status = told, status
        if failure.error.retry_after is None and failure.wait_named:
            failure.error.retry_after = failure.wait


def kept_error(error: bytes, secret: str, official: bool) -> bytes:
    """An error inside an answer, as a client reads it that speaks the upstream's API."""
    return kept_words(error, (secret,), official, _LIMITED in error, PUBLIC_HOSTS)


def known_of(channel: ChannelView, headers: Mapping[str, str], api: str) -> tuple[str, bool]:
    """The key that is in a request's headers, and whether its upstream is at the vendor's own address."""
    vendor = VENDORS[channel.provider]
    secret = headers.get(vendor.credentials.header, "").rpartition(" ")[2]
    return secret, bool(vendor.base_url) and httpx.URL(vendor.base_url).host == channel.urls[api].host


def pass_on_hints(failure: Failure, headers: httpx.Headers) -> None:
    """Let the client know what the upstream says of a retry, unless the error is about the portal's own credentials."""
    error, advice = failure.error, headers.get("x-should-retry", "")
    if error.retry is None and advice in {"true", "false"}:
        error.retry = advice == "true"
    if failure.kind is FailureClass.TOO_LARGE:  # it stays as large
        return
    if isinstance(error, UpstreamRefused) and ("retry-after" in headers or "retry-after-ms" in headers):
        error.retry_after = failure.wait


def connection_failure(reason: Exception) -> Failure:
    """The failure behind an error of the transport: no response arrived.

    Raises RelayUnavailable where no connection was free: those to every upstream are in use, so no other is tried.
    """
    if isinstance(reason, httpx.PoolTimeout):
        logger.warning("a request is refused: %s; see UPSTREAM_CONNECTIONS", reason)
        raise RelayUnavailable(
            "The portal holds as many connections to upstreams as it may. Try again in a few seconds.",
            code="overloaded",
            retry_after=2,
        )
    if isinstance(reason, PlanRefused):
        return Failure(reason.kind, reason.error, reason.status, reason.error.message)
    if isinstance(reason, ConnectRefused):
        error: RelayError = UpstreamFailed(
            "The upstream's address is not permitted on this portal. Tell the portal's administrator."
        )
        return Failure(FailureClass.CONFIG, error, 0, "the host name stands for an address that channels may not use")
    if isinstance(reason, httpx.ConnectTimeout):
        error = UpstreamTimeout("The upstream could not be reached in time (connect timeout). Try again.")
        return Failure(FailureClass.TRANSIENT, error, 0, "connect timeout", unreachable=True)
    if isinstance(reason, (httpx.ConnectError, httpx.ProxyError)):
        return Failure(
            FailureClass.TRANSIENT, UpstreamFailed(_UNREACHABLE), 0, f"cannot connect: {reason}"[:300], unreachable=True
        )
    return Failure(
        FailureClass.UNANSWERED, UpstreamFailed(BROKEN), 0, f"connection broke: {reason or type(reason).__name__}"[:300]
    )


def most_connections(wanted: int) -> int:
    """The connections to upstreams that this process may hold."""
    descriptors = raise_descriptors()
    most = limits.upstream_connections(wanted, descriptors)
    if most < wanted:
        logger.warning(
            "a worker holds at most %d connections to upstreams, not UPSTREAM_CONNECTIONS=%d: it may open %d files; "
            "raise their limit (ulimit -n, LimitNOFILE)", most, wanted, descriptors,
        )  # fmt: skip
    return most


class BodyStream(Protocol):
    """The methods of a transport's response body beyond httpx's interface."""

    async def read(self) -> bytes: ...
    def at_end(self) -> bool: ...
    def close(self) -> None: ...


class UpstreamAnswer:
    """An answer with a status of success whose body is being read. Must be closed."""

    __slots__ = ("_exchange", "_idle", "_peeked", "_response", "_stream", "content_type", "undecodable")

    def __init__(self, exchange: Exchange, response: httpx.Response, stream: BodyStream, idle: float) -> None:
        self._exchange, self._stream, self._idle, self._response = exchange, stream, idle, response
        self._peeked = b""  # read, and not yet returned
        # `undecodable`: the coding of a compressed body that cannot be read; empty for all others
        if isinstance(response, UpstreamResponse):
            self.content_type, self.undecodable = response.content_type, response.undecodable
        else:
            self.content_type, self.undecodable = response.headers.get("content-type", "").lower(), ""

    def header(self, name: str) -> str:
        """A header of the response; empty: it has none of this name."""
        return str(self._response.headers.get(name, ""))

    def headers_beginning(self, start: str) -> list[tuple[str, str]]:
        """The headers of the response whose names, in lower case, begin so."""
        return [(name, value) for name, value in self._response.headers.items() if name.startswith(start)]

    @property
    def framed(self) -> bool:
        """Whether more than the end of the connection tells where the body ends."""
        return self._response.framed if isinstance(self._response, UpstreamResponse) else True

    async def is_json(self) -> bool:
        """Whether the body is JSON rather than a stream of events, by its first character that is no white
        space. Raises as `read` does.

        The content type does not decide: relays send either with that of the other.
        """
        first = await self.read()
        while first.isspace() or (len(first) < len(_BOM) and _BOM.startswith(first) and first):
            piece = await self.read()
            if not piece:
                break
            first = first.lstrip() + piece
        self._peeked = first.removeprefix(_BOM)
        return self._peeked.lstrip().startswith((b"{", b"["))

    async def read(self) -> bytes:
        """The next piece of the body, empty at its end. Raises Failure, Ended or CancelledError."""
        exchange = self._exchange
        if self._peeked:
            peeked, self._peeked = self._peeked, b""
            return peeked
        if exchange.must_end is not None:
            raise Ended(exchange.must_end)
        exchange.wait_since = began = time.monotonic()
        exchange.wait_limit, exchange.waiting = self._idle, Interrupt.IDLE
        try:
            data = await self._stream.read()
            if exchange.left:
                exchange.count_unsent(len(data))
            return data
        except asyncio.CancelledError as cancelled:
            raise exchange.explain(cancelled) from None
        except httpx.TransportError as error:
            raise Failure(
                FailureClass.UNANSWERED,
                UpstreamFailed(BROKEN),
                0,
                f"connection broke: {error or type(error).__name__}"[:300],
            ) from None
        finally:
            exchange.waiting = None
            exchange.upstream_seconds += time.monotonic() - began

    async def read_all(self, limit: int = limits.ANSWER_BYTES) -> bytes:
        """The rest of the body.

        Raises as `read` does, Failure when it exceeds `limit` bytes, and RelayUnavailable when memory is short.
        """
        first = await self.read()
        whole = isinstance(self._stream, UpstreamStream) and not self._stream.decoded and self._stream.at_end()
        if whole and len(first) <= min(limit, limits.UNCOUNTED_BYTES):  # nearly always
            return first.removeprefix(_BOM)
        pieces, size = [first], len(first)
        while pieces[-1]:
            pieces.append(await self.read())
            size += len(pieces[-1])
            if size > limits.UNCOUNTED_BYTES:
                self._exchange.hold(len(pieces[-1]))
            if size > limit:
                raise Failure(FailureClass.TRANSIENT, UpstreamFailed(GARBAGE), 0, f"answer larger than {limit} bytes")
        return (b"".join(pieces) if len(pieces) > 2 else first).removeprefix(_BOM)

    async def drain(self, seconds: float) -> None:
        """Read to the end of the body within a time, so that the connection can be reused, and close the answer."""
        try:
            async with asyncio.timeout(seconds):
                while await self._stream.read():
                    continue
        except (TimeoutError, httpx.TransportError):
            pass  # only the connection is lost
        finally:
            self.close()

    def at_end(self) -> bool:
        return self._stream.at_end()

    def close(self) -> None:
        self._stream.close()
