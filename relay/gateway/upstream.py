"""Reads the body of an upstream's answer within the exchange's timeouts."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol

import httpx

from portal import limits
from relay.errors import UpstreamFailed
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.interrupts import Ended, Interrupt
from relay.providers.classify import Failure
from relay.providers.failures import FailureClass
from relay.transport.body import UpstreamResponse

_BOM: Final = b"\xef\xbb\xbf"  # servers on Windows write it before JSON
BROKEN: Final = "The connection to the upstream broke. Try again."
GARBAGE: Final = "The upstream's answer made no sense. Try again; if it keeps happening, try another model."


class BodyStream(Protocol):
    """The methods of a transport's response body beyond httpx's interface."""

    async def read(self) -> bytes: ...
    def at_end(self) -> bool: ...
    def close(self) -> None: ...


class UpstreamAnswer:
    """An answer with a status of success whose body is being read. Must be closed."""

    __slots__ = ("_exchange", "_idle", "_peeked", "_response", "_stream", "content_type")

    def __init__(self, exchange: Exchange, response: httpx.Response, stream: BodyStream, idle: float) -> None:
        self._exchange, self._stream, self._idle, self._response = exchange, stream, idle, response
        self._peeked = b""  # read, and not yet returned
        self.content_type: str = (
            response.content_type
            if isinstance(response, UpstreamResponse)
            else response.headers.get("content-type", "").lower()
        )

    @property
    def undecodable(self) -> str:
        """The coding of a compressed body that cannot be read; empty for all others."""
        return self._response.undecodable if isinstance(self._response, UpstreamResponse) else ""

    def header(self, name: str) -> str:
        """A header of the response; empty: it has none of this name."""
        return str(self._response.headers.get(name, ""))

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
