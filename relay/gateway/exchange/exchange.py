"""The state of one client request while it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, ClassVar, Final, TypeVar

from portal import limits
from portal.lib import net
from portal.lib.ids import time_ordered_hex
from portal.services.timeouts import refusals
from relay.billing.ledger.rows import RowWrite
from relay.billing.prices import ONE
from relay.errors import OPENAI_ERRORS, ErrorShape, RelayError, RelayUnavailable, RequestTooLarge
from relay.gateway.exchange.client import Client
from relay.gateway.exchange.interrupts import Ended, Interrupt
from relay.gateway.exchange.trace import Trace
from relay.gateway.exchange.waiting import follower
from relay.gateway.limits.memory import HeldBytes
from relay.gateway.snapshot.callers import Caller

T = TypeVar("T")
AsgiScope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

KEEP_ALIVE: Final = b": keep-alive\n\n"
WRITER_SECONDS: Final = 12.0  # that the writer is waited for
FINAL_WRITE_SECONDS: Final = 10.0  # that a client may take to read the end of a stream
_MAX_UNSENT: Final = 16 * 1024 * 1024  # bytes that are read of an answer whose client has left


class Exchange:
    """The state of one request. Times are `time.monotonic()` seconds, except `wall`."""

    __slots__ = (
        "_receive",
        "_send",
        "asked",
        "at_end",
        "begun",
        "body_read",
        "caller",
        "client",
        "early_at",
        "early_head",
        "early_start",
        "ended_by",
        "error_event",
        "error_shape",
        "farewell",
        "gone_at",
        "headers",
        "held",
        "interrupted",
        "ip",
        "left",
        "linger",
        "listener",
        "made",
        "model_asked",
        "model_in_path",
        "must_end",
        "over_plan",
        "pinned",
        "price_factor",
        "progress",
        "quiet_since",
        "reached",
        "recorded",
        "refusal",
        "reply_headers",
        "request_id",
        "rows_for",
        "sign_of_life",
        "started",
        "streaming",
        "task",
        "tokens_used",
        "total_at",
        "trace",
        "unsent",
        "upstream_seconds",
        "wait_limit",
        "wait_since",
        "waiting",
        "wall",
    )

    # Whether it waits a while for money that other requests hold. Batches wait elsewhere, where they hold nothing.
    waits_for_money: ClassVar[bool] = True
    withdraws_record: ClassVar[bool] = True  # whether an answer is given up when its record takes too long

    def __init__(self, scope: AsgiScope, receive: Receive, send: Send, ip: str) -> None:
        self.started = time.monotonic()
        self.wall = time.time()  # seconds since 1970
        self.request_id = "req_" + time_ordered_hex()
        self.headers: Mapping[bytes, bytes] = dict(scope["headers"])
        self.client = Client(self.headers)
        self.ip = ip
        self.error_shape: ErrorShape = OPENAI_ERRORS  # of the API that the client speaks
        self.model_in_path = ""  # that the path names, as Azure's paths do; empty: the body names it
        self.model_asked = ""  # as the client wrote it, once it has been read
        self.caller: Caller | None = None
        self.recorded = False  # it has a usage record
        self.trace: Trace | None = None
        self.refusal: RelayError | None = None  # the error that it was answered with, unless it was raised
        self.task: asyncio.Task[Any] | None = asyncio.current_task()
        self.listener: asyncio.Task[None] | None = None  # detects that the client disconnects
        self.interrupted: Interrupt | None = None  # why the task was cancelled
        # An upstream goes on with its answer when the client leaves, and bills it. So that its usage is known, the
        # answer is read on for some seconds, as if the client was there; what is written then goes nowhere.
        self.linger = 0.0  # for how long; 0 while no upstream is asked
        self.left = False  # the client has left, and the answer is read on
        self.gone_at = 0.0  # when that ends
        self.unsent = 0  # bytes read since then
        self.asked = False  # an upstream was asked, and may bill
        self.reached = False  # an upstream was asked, whatever came of it
        self.made = False  # an upstream has probably made an answer, and bills it, though none that could be used
        self.ended_by: Interrupt | None = None  # why the request was ended as if its client had left, which is there
        self.begun = False  # the head of a stream has been sent
        self.farewell: Callable[[Interrupt], bytes] | None = None  # the event with which a running stream ends
        # The limit that runs while the task waits for the upstream or the database, None while it does not wait.
        # Only then may the watchdog interrupt it for slowness.
        self.waiting: Interrupt | None = None
        self.body_read = False
        self.streaming = False  # pieces of a stream are being sent
        self.must_end: Interrupt | None = None  # why it must end at its next step
        self.pinned = 0  # the channel that the token names, 0: none
        self.over_plan = False  # it is for the user's own plan at a vendor
        self.price_factor = ONE  # parts per million of the price
        # Makes the rows that are written together with the record of a complete answer, from its status and body.
        self.rows_for: Callable[[int, bytes], Sequence[RowWrite]] | None = None
        self.progress: Callable[[], dict[str, Any]] | None = None  # its current state, for the admin
        self.wait_since = self.wait_limit = 0.0
        self.total_at = 0.0  # when the total timeout ends, 0: none yet
        # A stream's head may be sent before its answer begins, so that proxies keep the connection.
        self.early_at = 0.0  # when it is due, 0: never
        self.early_head: Callable[[], Message] | None = None  # makes it; None where the setting is off
        self.early_start: asyncio.Future[None] | None = None  # its sending, once that has begun
        self.error_event: Callable[[bytes], bytes] = _no_event  # the event in place of an error's body after that
        self.quiet_since = 0.0  # when the client got its last piece, 0 while no comment may be sent
        self.sign_of_life = KEEP_ALIVE  # what a stream is sent while it waits
        self.reply_headers: list[tuple[bytes, bytes]] = []  # that the gateway adds to the answer
        self.upstream_seconds = 0.0  # spent waiting for upstreams
        self.tokens_used: int | None = None  # what the limits count, None while it is not known
        self.at_end: list[Callable[[], None]] = []  # called when the exchange has ended, in any way
        self.held = HeldBytes()
        self._receive, self._send = receive, send

    def read_through(self, decode: Callable[[Receive], Receive]) -> None:
        """Have the body decoded as it is read."""
        self._receive = decode(self._receive)

    # -- the client --------------------------------------------------------------------------------------------------

    async def read_body(self, limit: int) -> bytes:
        """Read the request's body. Raises CancelledError when the client disconnects.

        Raises RequestTooLarge, before anything is read if the length is announced.
        """
        announced = self.announced_length
        if announced is not None and announced > limit:
            raise RequestTooLarge.over(limit)
        message = await self._receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False):
            self._check(message)
            if len(body) > limit:
                raise RequestTooLarge.over(limit)
            if len(body) > limits.UNCOUNTED_BYTES:
                self.hold(len(body))
            self.body_read = True
            return body
        pieces, size = [body], len(body)
        if size > limits.UNCOUNTED_BYTES:
            self.hold(size)
        while message.get("more_body", False):
            message = await self._receive()
            self._check(message)
            piece = message.get("body", b"")
            size += len(piece)
            if size > limit:
                raise RequestTooLarge.over(limit)
            if size > limits.UNCOUNTED_BYTES:
                self.hold(len(piece))
            pieces.append(piece)
        self.body_read = True
        return b"".join(pieces)

    def hold(self, size: int) -> None:
        """Count bytes that are kept in memory until the exchange has ended. Raises RelayUnavailable."""
        if self.held.give_back not in self.at_end:
            # The caller is known before a body is read, so a user has one share from any number of addresses.
            self.held.owner = f"user {self.caller.user_id}" if self.caller is not None else net.block_key(self.ip)
            self.at_end.append(self.held.give_back)
        if not self.held.take(size):
            raise RelayUnavailable(
                "The portal is handling as many large requests as its memory takes. Try again in a few seconds.",
                code="overloaded",
                retry_after=5,
            )

    async def body_pieces(self) -> AsyncIterator[bytes]:
        """The body in the pieces that arrive, for uploads that do not fit in memory.

        Raises CancelledError when the client disconnects.
        """
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
        """The bytes of the body according to its header; None when that is missing."""
        announced = self.headers.get(b"content-length", b"")
        return int(announced) if announced.isdigit() and len(announced) < 19 else None

    def _check(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self.interrupted = Interrupt.CLIENT_GONE
            raise asyncio.CancelledError

    def listen(self, on_leave: Callable[[Exchange], None]) -> None:
        """Begin to detect that the client disconnects. Called by the watchdog for slow requests: quick ones need no
        task.

        Does nothing before the body has been read: two readers would take its pieces from each other.
        """
        if self.listener is None and self.body_read:
            self.listener = asyncio.ensure_future(self._listen(on_leave))

    async def _listen(self, on_leave: Callable[[Exchange], None]) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                on_leave(self)
                return

    def leave(self) -> bool:
        """The client has left, or reads no more. Returns whether the upstream's answer is read on for its usage."""
        if self.linger and not self.left:
            self.left, self.quiet_since, self.early_at = True, 0.0, 0.0
            self.gone_at, self.total_at = time.monotonic() + self.linger, 0.0
        return self.left

    def count_unsent(self, size: int) -> None:
        """Count bytes that were read after the client had left: there is an end to them."""
        self.unsent += size
        if self.unsent > _MAX_UNSENT:
            self.gone_at = time.monotonic()

    async def write(self, data: bytes, mid_event: bool = False) -> None:
        """Send a piece of a stream; returns when the client's buffer has room again.

        `mid_event`: it ends inside an event.
        """
        if self.left:
            return
        self.streaming, self.quiet_since = True, 0.0  # a keep-alive comment during this send might split an event
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        if not mid_event:
            self.quiet_since = time.monotonic()

    async def write_last(self, data: bytes) -> None:
        """Send the end of a stream.

        A client that reads no more gets an incomplete answer, and the server disconnects it.
        """
        if self.left:
            if self.ended_by is None or not self.begun:
                return
            data = b""  # the client has been told why
        self.streaming, self.quiet_since, self.farewell = False, 0.0, None
        self.total_at = time.monotonic() + FINAL_WRITE_SECONDS
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": False})
        except asyncio.CancelledError as cancelled:
            if not isinstance(self.explain(cancelled), Ended):
                raise

    async def say_farewell(self) -> None:
        """Tell the client of a running stream why it gets no more, while the upstream is read on."""
        if self.begun and self.farewell is not None and self.ended_by is not None:
            event = self.farewell(self.ended_by)
            if event:
                await self._send({"type": "http.response.body", "body": event, "more_body": True})

    def start_early(self) -> None:
        """Send the head of the stream and a comment, before the answer has begun."""
        self.early_at = 0.0
        if self.early_head is not None and self.early_start is None:
            self.early_start = asyncio.ensure_future(self._start_early(self.early_head()))

    async def _start_early(self, head: Message) -> None:
        await self._send(head)
        await self.keep_alive()
        self.quiet_since = time.monotonic()

    async def keep_alive(self) -> None:
        if not self.left:
            await self._send({"type": "http.response.body", "body": self.sign_of_life, "more_body": True})

    # -- records and prices ------------------------------------------------------------------------------------------

    def renew(self) -> None:
        """Begin another request on the same connection, with a record of its own."""
        self.request_id = "req_" + time_ordered_hex()
        self.started, self.wall = time.monotonic(), time.time()
        self.recorded = False

    def multiplier(self, of_caller: int) -> int:
        """The price multiplier in parts per million: the caller's, times that of the endpoint (batches)."""
        return of_caller if self.price_factor == ONE else of_caller * self.price_factor // ONE

    def stored_rows(self, status: int, body: bytes) -> Sequence[RowWrite]:
        return self.rows_for(status, body) if self.rows_for is not None else ()

    @property
    def keeps_answer(self) -> bool:
        """Whether its answer is stored although its client has left, or it was ended as if it had."""
        return True

    # -- interruption ------------------------------------------------------------------------------------------------

    def interrupt(self, reason: Interrupt) -> None:
        """Cancel the request's task. Only the first reason counts."""
        if self.interrupted is None and self.task is not None and not self.task.done():
            self.interrupted = reason
            self.task.cancel()

    def end(self, reason: Interrupt) -> None:
        """End the request: at once if it waits for the upstream or streams, otherwise at its next step.

        Only the first reason counts.
        """
        self.must_end = self.must_end or reason
        if self.waiting is not Interrupt.DATABASE and (self.waiting is not None or self.streaming):
            self.interrupt(self.must_end)

    def check_end(self) -> None:
        """Raises Ended when `end` has been called, CancelledError when the client has left: nothing more is sent."""
        if self.left:
            self.interrupted = Interrupt.CLIENT_GONE
            raise asyncio.CancelledError
        if self.must_end is not None:
            raise Ended(self.must_end)

    def explain(self, cancelled: asyncio.CancelledError) -> BaseException:
        """The exception to raise for a CancelledError: `Ended` if this request was interrupted, otherwise the same
        error.
        """
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
        """Wait until a usage record is on disk. Raises RelayUnavailable; it is written later all the same."""
        if future is not None:
            await self.wait_for_writer(follower(future))
            future.result()

    async def wait_for_writer(self, future: asyncio.Future[T]) -> T:
        """Wait for the writer. Raises RelayUnavailable."""
        self.begin_wait(Interrupt.DATABASE, WRITER_SECONDS)
        try:
            return await future
        except asyncio.CancelledError as cancelled:
            why = self.explain(cancelled)
            if isinstance(why, Ended):
                refusals.add()
                raise RelayUnavailable(
                    "The portal could not record this request. Try again in a few seconds.", retry_after=5
                ) from None
            raise
        finally:
            self.waiting = None


def _no_event(body: bytes) -> bytes:
    return b""
