"""Reads the body of an upstream's answer within the exchange's timeouts."""

from __future__ import annotations

import asyncio
import time
from typing import Final, Protocol

import httpx

from relay.errors import UpstreamFailed
from relay.gateway.exchange import Ended, Exchange, Interrupt
from relay.providers.classify import Failure
from relay.providers.failures import FailureClass
from relay.transport.body import UpstreamResponse

_ANSWER_LIMIT: Final = 256 * 1024 * 1024
BROKEN: Final = "The connection to the upstream broke. Try again."
GARBAGE: Final = "The upstream's answer made no sense. Try again; if it keeps happening, try another model."


class BodyStream(Protocol):
    """The methods of a transport's response body beyond httpx's interface."""

    async def read(self) -> bytes: ...
    def at_end(self) -> bool: ...
    def close(self) -> None: ...


class UpstreamAnswer:
    """An answer with the status 200 whose body is being read. Must be closed."""

    __slots__ = ("_exchange", "_idle", "_stream", "content_type", "encoded")

    def __init__(self, exchange: Exchange, response: httpx.Response, stream: BodyStream, idle: float) -> None:
        self._exchange, self._stream, self._idle = exchange, stream, idle
        if isinstance(response, UpstreamResponse):
            self.content_type, self.encoded = response.content_type, response.encoded
        else:
            self.content_type, self.encoded = response.headers.get("content-type", ""), False

    async def read(self) -> bytes:
        """The next piece of the body, empty at its end. Raises Failure, Ended or CancelledError."""
        exchange = self._exchange
        if exchange.must_end is not None:
            raise Ended(exchange.must_end)
        exchange.wait_since = began = time.monotonic()
        exchange.wait_limit, exchange.waiting = self._idle, Interrupt.IDLE
        try:
            return await self._stream.read()
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

    async def read_all(self, limit: int = _ANSWER_LIMIT) -> bytes:
        """The rest of the body. Raises as `read` does, and Failure when it exceeds `limit` bytes."""
        first = await self.read()
        pieces, size = [first], len(first)
        while pieces[-1]:
            pieces.append(await self.read())
            size += len(pieces[-1])
            if size > limit:
                raise Failure(FailureClass.TRANSIENT, UpstreamFailed(GARBAGE), 0, f"answer larger than {limit} bytes")
        return b"".join(pieces) if len(pieces) > 2 else first

    def at_end(self) -> bool:
        return self._stream.at_end()

    def close(self) -> None:
        self._stream.close()
