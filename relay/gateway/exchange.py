"""One client request: what is known of it while it runs, and what its endpoint asks of the gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

from portal.lib.ids import time_ordered_hex
from relay.billing.ledger.rows import RowWrite
from relay.billing.prices import ONE
from relay.errors import RelayError, RelayUnavailable, RequestTooLarge, UpstreamTimeout
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ChannelView, Pair
from relay.protocols.usage import Usage

T = TypeVar("T")
AsgiScope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Fit = Callable[[ChannelView], RelayError | None]

KEEP_ALIVE: Final = b": keep-alive\n\n"
NO_UNITS: Final = Usage()
LAST_WORDS: Final = 10.0  # seconds for the end of a stream to be taken by its client


class Interrupt(Enum):
    """Why a running request was cancelled from outside its own task."""

    CLIENT_GONE = "the client left"
    FIRST_BYTE = "no first byte in time"
    IDLE = "silent for too long"
    TOTAL = "took too long"
    DATABASE = "the database did not answer in time"
    REVOKED = "the token was revoked"
    SPENT = "nothing was left to pay with"
    KILLED = "ended by an administrator"
    STOPPING = "the portal is stopping"


_TIMEOUTS: Final = {
    Interrupt.FIRST_BYTE: "The upstream did not begin to answer in time (first-byte timeout). Try again, or use a faster model.",
    Interrupt.IDLE: "The upstream fell silent in the middle of its answer (idle timeout). Try again.",
    Interrupt.TOTAL: "The answer took longer than this portal allows (total timeout). Ask for a shorter answer.",
}


class Ended(Exception):
    """The request must stop, for a reason that is not the upstream's."""

    def __init__(self, reason: Interrupt) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Exchange:
    """State of one request. Times are `time.monotonic()` seconds, but for `wall`."""

    __slots__ = (
        "_receive",
        "_send",
        "at_end",
        "body_read",
        "caller",
        "client_id",
        "headers",
        "interrupted",
        "ip",
        "listener",
        "must_end",
        "pinned",
        "price_factor",
        "progress",
        "quiet_since",
        "reply_headers",
        "request_id",
        "rows_for",
        "started",
        "streaming",
        "task",
        "tokens_used",
        "total_at",
        "upstream_seconds",
        "wait_limit",
        "wait_since",
        "waiting",
        "wall",
    )  # fmt: skip

    def __init__(self, scope: AsgiScope, receive: Receive, send: Send, ip: str) -> None:
        self.started = time.monotonic()
        self.wall = time.time()  # seconds since 1970
        self.request_id = "req_" + time_ordered_hex()
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.client_id = self.headers.get(b"x-client-request-id", b"")[:64].decode("ascii", "replace")
        self.ip = ip
        self.caller: Caller | None = None
        self.task: asyncio.Task[Any] | None = asyncio.current_task()
        self.listener: asyncio.Task[None] | None = None  # notices that the client has left
        self.interrupted: Interrupt | None = None  # why the task was cancelled
        # The limit that runs while the task waits for the upstream or the database, None while it does not wait.
        # Only then may the watchdog interrupt it for slowness.
        self.waiting: Interrupt | None = None
        self.body_read = False
        self.streaming = False  # pieces of a stream are being sent
        self.must_end: Interrupt | None = None  # why it shall end at its next step
        self.pinned = 0  # the channel that the token names, 0: none
        self.price_factor = ONE  # parts per million of the price
        # Makes the rows that are written together with the record of a whole answer, from its status and body.
        self.rows_for: Callable[[int, bytes], Sequence[RowWrite]] | None = None
        self.progress: Callable[[], dict[str, Any]] | None = None  # what the request is doing, for people who look
        self.wait_since = self.wait_limit = 0.0
        self.total_at = 0.0  # when the time for the whole answer is over, 0: no limit yet
        self.quiet_since = 0.0  # when the client got its last piece, 0 while no comment may be put in between
        self.reply_headers: list[tuple[bytes, bytes]] = []  # what the gateway adds to the answer's headers
        self.upstream_seconds = 0.0  # spent waiting for upstreams
        self.tokens_used: int | None = None  # what the limits count, None while it is not known
        self.at_end: list[Callable[[], None]] = []  # called when the exchange is over, whatever became of it
        self._receive, self._send = receive, send

    # -- the client --------------------------------------------------------------------------------------------------

    async def read_body(self, limit: int) -> bytes:
        """The request's body. Raises RequestTooLarge, before anything is read when the length is announced; CancelledError when the client leaves."""
        announced = self.announced_length
        if announced is not None and announced > limit:
            raise _too_large(limit)
        message = await self._receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            self._check(message)
            if len(body) > limit:
                raise _too_large(limit)
            self.body_read = True
            return body
        pieces, size = [body], len(body)
        while message.get("more_body", False):
            message = await self._receive()
            self._check(message)
            piece = message.get("body", b"")
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            pieces.append(piece)
        self.body_read = True
        return b"".join(pieces)

    async def body_pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives, for what must not be kept in memory. Raises CancelledError when the client leaves."""
        more = True
        while more:
            message = await self._receive()
            self._check(message)
            more = message.get("more_body", False)
            if piece := message.get("body", b""):
                yield piece
        self.body_read = True

    @property
    def announced_length(self) -> int | None:
        """Bytes of the body, as its header says; None when it does not."""
        announced = self.headers.get(b"content-length", b"")
        return int(announced) if announced.isdigit() and len(announced) < 19 else None

    def _check(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self.interrupted = Interrupt.CLIENT_GONE
            raise asyncio.CancelledError

    def listen(self) -> None:
        """Begin to notice when the client leaves. Called by the watch, for requests that last: quick ones need no second task.

        Not before the body has been read: two readers would take its pieces from each other.
        """
        if self.listener is None and self.body_read:
            self.listener = asyncio.ensure_future(self._listen())

    async def _listen(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.interrupt(Interrupt.CLIENT_GONE)
                return

    async def write(self, data: bytes, mid_event: bool = False) -> None:
        """Send a piece of a stream; returns when the client's buffer has room again. `mid_event`: it ends inside an event."""
        self.streaming, self.quiet_since = True, 0.0  # a comment that is put in while this waits for the client might tear an event apart
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        if not mid_event:
            self.quiet_since = time.monotonic()

    async def write_last(self, data: bytes) -> None:
        """Send the end of a stream. A client that takes no more bytes is left with an unfinished answer, which the server then cuts off."""
        self.streaming, self.quiet_since = False, 0.0
        self.total_at = time.monotonic() + LAST_WORDS
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": False})
        except asyncio.CancelledError as cancelled:
            if not isinstance(self.explain(cancelled), Ended):
                raise

    async def keep_alive(self) -> None:
        await self._send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})

    # -- what others have asked of it --------------------------------------------------------------------------------

    def renew(self) -> None:
        """What follows is another request on the same connection, with a record of its own."""
        self.request_id = "req_" + time_ordered_hex()
        self.started, self.wall = time.monotonic(), time.time()

    def multiplier(self, of_caller: int) -> int:
        """The price multiplier, in parts per million."""
        return of_caller if self.price_factor == ONE else of_caller * self.price_factor // ONE

    def stored_rows(self, status: int, body: bytes) -> Sequence[RowWrite]:
        return self.rows_for(status, body) if self.rows_for is not None else ()

    # -- interruption ------------------------------------------------------------------------------------------------

    def interrupt(self, reason: Interrupt) -> None:
        """Cancel the request's task. The first reason stands."""
        if self.interrupted is None and self.task is not None and not self.task.done():
            self.interrupted = reason
            self.task.cancel()

    def end(self, reason: Interrupt) -> None:
        """End the request from outside: at once when it waits for the upstream or streams, otherwise at its next step. The first reason stands."""
        self.must_end = self.must_end or reason
        if self.waiting is not Interrupt.DATABASE and (self.waiting is not None or self.streaming):
            self.interrupt(self.must_end)

    def check_end(self) -> None:
        """Raises Ended when somebody has ended the request."""
        if self.must_end is not None:
            raise Ended(self.must_end)

    def explain(self, cancelled: asyncio.CancelledError) -> BaseException:
        """What to raise instead of a CancelledError: `Ended` when the watch interrupted this request, the same error otherwise."""
        if self.interrupted is None or self.interrupted is Interrupt.CLIENT_GONE or self.task is None:
            return cancelled
        self.task.uncancel()
        reason, self.interrupted = self.interrupted, None
        return Ended(reason)

    def begin_wait(self, kind: Interrupt, limit: float) -> None:
        self.wait_since = time.monotonic()
        self.wait_limit = limit
        self.waiting = kind

    async def committed(self, future: asyncio.Future[None] | None) -> None:
        """Wait until a usage record is on disk. Raises RelayUnavailable."""
        if future is not None:
            await self.answered(future)

    async def answered(self, future: asyncio.Future[T]) -> T:
        """Wait for the writer. Raises RelayUnavailable."""
        self.begin_wait(Interrupt.DATABASE, 12.0)
        try:
            return await future
        except asyncio.CancelledError as cancelled:
            why = self.explain(cancelled)
            if isinstance(why, Ended):
                raise RelayUnavailable("The portal could not record this request. Try again in a few seconds.", retry_after=5) from None
            raise
        finally:
            self.waiting = None


def timeout_error(reason: Interrupt) -> UpstreamTimeout:
    return UpstreamTimeout(_TIMEOUTS[reason])


def _too_large(limit: int) -> RequestTooLarge:
    size = f"{limit / 1_048_576:.0f} MiB" if limit >= 1_048_576 else f"{limit} bytes"
    return RequestTooLarge(f"The request body is larger than the {size} that this portal accepts. Send less, or send files by URL.")


@dataclass(slots=True)
class GatewayRequest:
    """One request as the gateway sees it. Token counts are estimates."""

    endpoint: str  # its name in usage records, one of `relay.providers.apis.PATHS`
    model: str  # as the client wrote it
    fit: Fit  # why a channel cannot serve the request, None when it can
    stream: bool = False
    prompt_tokens: int = 0
    output_limit: int | None = 0  # tokens of each of `choices` answers; None: the request names no limit
    choices: int = 1
    conversation: str = ""  # requests with the same one go to the same channel
    units: Usage = NO_UNITS  # images, characters and milliseconds that are known beforehand
    exact: bool = False  # the answer cannot be made cheaper by asking for less, so all of it must be covered
    prefer: Pair | None = None  # the channel and key that know what came before
