"""Streams an answer from the upstream to the client. The record is on disk before the last bytes are sent."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Final, Protocol

from portal.lib.json import Json
from relay.billing.ledger.rows import RowWrite
from relay.errors import InternalError, RelayError, RelayUnavailable, UpstreamFailed, UpstreamTimeout, UpstreamTruncated
from relay.gateway.attempt import Attempt, interrupt_error, interrupt_failure
from relay.gateway.charging.meter import meter_of, weight
from relay.gateway.exchange.interrupts import Ended, Interrupt, ended_error
from relay.gateway.outcome import CLIENT_GONE, COMPLETED, INTERNAL, SHUTDOWN, Outcome, end_reason
from relay.gateway.replies import EventStream
from relay.gateway.upstream import GARBAGE, UpstreamAnswer
from relay.protocols.codec import EVENT_STREAM, JSON_STREAM, BrokenOff, Codec, Conversion
from relay.protocols.sse import BOUNDARY
from relay.protocols.usage import Delivered
from relay.providers.classify import Failure
from relay.providers.failures import FailureClass

logger: Final = logging.getLogger(__name__)
# Seconds to wait for the upstream to end its response after the end marker, so that the connection can be reused.
_DRAIN: Final = 0.5
# Bytes that are passed on between two checks of the meter, of an event that is larger.
_PIECE: Final = 4096
_MAX_HELD: Final = 64 * 1024  # bytes that say nothing and are held
_NO_TIMEOUT: Final = nullcontext()
_UNRECORDED: Final = (
    "This answer is complete, but the portal could not record it in time. It is charged once it can be: do not send "
    "the request again unless you want another answer."
)


class Keeper(Protocol):
    """Makes the rows that are written in the same commit as the record of a stream."""

    def rows(self) -> Sequence[RowWrite]:
        """Those of a complete answer."""

    def so_far(self) -> Json | None:
        """The answer as far as it has been passed on; None where it is not stored."""

    def rows_of_broken(self, so_far: Json, end: BrokenOff) -> Sequence[RowWrite]:
        """Those of an answer that broke off."""


async def stream_answer(
    attempt: Attempt, upstream: UpstreamAnswer, codec: Codec, keeper: Keeper | None = None
) -> EventStream:
    """Wait until the answer says something, and return a response whose pump sends the rest.

    What comes first, such as a chunk with nothing but the role, is held for as long as a client may go without a sign
    of life: an answer that fails meanwhile can be tried elsewhere.

    Raises Failure, Ended, CancelledError.
    """
    pump = Pump(attempt, upstream, codec, keeper)
    begun = await pump.prime()
    if codec.error is not None and not codec.started:
        raise attempt.error_in_body(codec.error)
    if not begun:
        detail = f"the answer ({upstream.content_type or 'no content type'}) ended without a single event"
        raise Failure(FailureClass.TRANSIENT, UpstreamFailed(GARBAGE), 200, detail)
    attempt.answered()
    attempt.record.delivered = codec.delivered_units
    attempt.add_headers()
    return EventStream(pump.run, codec.content_type, pump.opening)


class Pump:
    """Sends one stream. `run` raises nothing but CancelledError, and always submits a record."""

    def __init__(self, attempt: Attempt, upstream: UpstreamAnswer, codec: Codec, keeper: Keeper | None) -> None:
        self._attempt, self._upstream, self._codec = attempt, upstream, codec
        self._exchange, self._record = attempt.exchange, attempt.record
        # Audio has no events and is charged by the text that was to be spoken.
        counted = codec.content_type in {EVENT_STREAM, JSON_STREAM}
        self._meter = meter_of(attempt.record.charge, attempt.exchange) if counted else None
        self._keeper = keeper
        self._primed: list[bytes] = []  # bytes that the codec has returned and that have not been sent
        self._opened = False  # they have been sent with the head
        self._rest = b""  # bytes of the upstream that the codec has not been fed
        self._size = 0  # bytes of the upstream that it has
        self._uncounted = 0  # of them, by their weight, those that the meter has not been told of
        # What follows once the estimate says that nothing more is paid for. An upstream that keeps to the limit is then
        # about to end, and its usage tells whether this is paid for as well. None: nothing is held back.
        self._held: list[bytes] | None = None
        self._sent_units = (0.0, 0.0)  # estimated tokens, and of them of audio, before that
        self._sent: Json | None = None  # the answer as it was before that, where it is stored

    async def prime(self) -> bool:
        """Read until the answer says something, or until what comes before that has been held for long enough.

        Returns whether the answer has begun. Raises as `UpstreamAnswer.read`.
        """
        codec, held, until = self._codec, 0, None
        while not codec.started and codec.error is None and not codec.done:
            try:
                async with asyncio.timeout_at(until) if until is not None else _NO_TIMEOUT:
                    data = await self._read()
            except TimeoutError:
                return True
            out = codec.feed(data) if data else codec.finish(self._upstream.framed)
            if out:
                self._primed.append(out)
                held += len(out)
            if not data or held > _MAX_HELD:
                return codec.started or bool(data)
            if until is None and b"data:" in out:
                until = asyncio.get_running_loop().time() + self._attempt.run.watchdog.keepalive
        return codec.started

    def opening(self) -> bytes:
        """Take what has been read for the head to be sent with it."""
        self._opened, primed, self._primed = True, self._primed, []
        self._exchange.streaming = True
        self._exchange.quiet_since = 0.0 if self._codec.mid_event else time.monotonic()
        return b"".join(primed)

    async def _read(self) -> bytes:
        """The next bytes for the codec. Near the end of what is paid for, that is one event at a time."""
        data = self._rest or await self._upstream.read()
        self._rest = b""
        if self._meter is not None and weight(data) > self._meter.room - self._uncounted:
            most = max(0, self._meter.room - self._uncounted)
            end = BOUNDARY.search(data, most)
            most = min(end.end() if end is not None else len(data), most + _PIECE)
            data, self._rest = data[:most], data[most:]
        self._size += len(data)
        self._uncounted += weight(data)
        return data

    def _outcome(self, reason: str, error: RelayError | None = None, detail: str = "") -> Outcome:
        codec, (units, audio) = self._codec, self._sent_units
        if self._held is None:
            delivered = Delivered(
                self._size, codec.delivered_units, codec.audio_units, codec.complete, codec.is_opaque, codec.media
            )
        else:
            delivered = Delivered(self._size, lambda: units, lambda: audio, False, codec.is_opaque, codec.media)
        return Outcome(reason, 200, codec.usage, error, detail, delivered)

    def _rows(self, end: BrokenOff | None) -> Sequence[RowWrite]:
        """The rows to write with the record: of an answer that broke off, with what was passed on and no more.

        `end`: how it did, if it did; one whose upstream has ended it is complete all the same.
        """
        keeper, held = self._keeper, self._held is not None
        if keeper is None:
            return ()
        if self._codec.done and not held:
            return keeper.rows()
        so_far = self._sent if held else keeper.so_far()
        return keeper.rows_of_broken(so_far, end) if so_far is not None and end is not None else ()

    async def run(self) -> None:
        """Send the stream. Called when the response's headers have been sent."""
        exchange, record, codec = self._exchange, self._record, self._codec
        exchange.farewell = self._farewell
        try:
            error, detail, broke = await self._run_to_end()
            reusable = codec.done
            if not reusable:
                self._upstream.close()
            if error is not None and (broke or isinstance(error, UpstreamTimeout)) and self._ends_whole():
                error = None  # the client has the whole answer
            if broke:
                self._attempt.broke_off(detail, codec.error)
            elif codec.failed is not None:
                self._attempt.told_failure(codec.failed)
            if error is None:
                self._attempt.learn_unseen(codec.usage, codec.delivered_units)
            rows = self._rows(
                BrokenOff("failed", error.public_code or "", error.message) if error is not None else None
            )
            reason = COMPLETED if error is None else end_reason(error)
            future = record.submit(self._outcome(reason, error, detail), rows)
            try:
                await exchange.committed(future)
            except RelayUnavailable as unavailable:  # what was delivered is charged all the same
                error = unavailable if codec.failed is not None else error or RelayUnavailable(_UNRECORDED)
            if error is not None and (codec.failed is None or error.http_status == 503):
                await self._write_failure(error)
            else:
                await exchange.write_last(codec.terminal or codec.ending)
            self._release_connection(reusable)
        except asyncio.CancelledError:
            self._upstream.close()
            self._record_interruption()
            raise
        except Exception:
            logger.exception("a stream failed", extra={"request_id": exchange.request_id})
            self._upstream.close()
            fault = InternalError()
            record.submit(self._outcome(INTERNAL, fault), wait=False)
            await self._write_failure(fault)

    async def _run_to_end(self) -> tuple[RelayError | None, str, bool]:
        """Send the stream to its end; returns its error, the detail for staff, and whether the upstream is at fault."""
        codec = self._codec
        try:
            await self._forward()
        except Failure as failure:
            return (
                UpstreamTruncated("The connection to the upstream broke in the middle of the answer. Try again."),
                failure.detail,
                True,
            )
        except Ended as ended:
            return interrupt_failure(ended).error, ended.reason.value, ended.reason is Interrupt.IDLE
        except RelayError as unavailable:  # the reservation could not be extended
            return unavailable, "the database did not answer", False
        if codec.error is not None:
            return *self._attempt.stream_error(codec.error), True
        if not codec.complete:
            error = UpstreamTruncated(
                "The upstream cut its answer off before the end. The text so far is incomplete; try again."
            )
            return error, "the connection was closed before the end of the answer", True
        if not codec.done:
            return None, "", False
        failed = (None, "") if codec.failed is None else self._attempt.stream_error(codec.failed)
        return *failed, False

    async def _write_failure(self, error: RelayError) -> None:
        """Send an error event. Audio has none: its answer stays incomplete, and the server disconnects the client."""
        event = self._failure(error)
        if event:
            await self._exchange.write_last(event)

    def _failure(self, error: RelayError) -> bytes:
        codec = self._codec
        event = codec.failure(error.message, error.public_type, error.public_code, error.param)
        return (b"\n\n" if codec.mid_event else b"") + event if event else b""

    def _farewell(self, reason: Interrupt) -> bytes:
        error = ended_error(reason)
        return self._failure(error) if error is not None else b""

    async def _forward(self) -> None:
        """Send bytes until the upstream's end, its end marker or its error."""
        codec = self._codec
        last = len(self._primed) - 1
        for index, piece in enumerate(self._primed):
            await self._write(piece, index == last and codec.mid_event)
        if self._primed or self._opened:
            self._primed = []
            await self._check_meter()
        while not codec.done and codec.error is None:
            data = await self._read()
            if not data:
                tail = codec.finish(self._upstream.framed)
                if tail and self._held is not None:
                    self._held.append(tail)
                elif tail:
                    await self._write(tail if tail.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")) else tail + b"\n\n")
                break
            out = codec.feed(data)
            if out and self._held is not None:
                self._held.append(out)
            elif out:
                await self._write(out, codec.mid_event)
            await self._check_meter()
        if self._held is not None and codec.error is None and codec.complete:
            await self._send_held()
        self._exchange.quiet_since = 0.0

    async def _check_meter(self) -> None:
        """Count what has been passed on. Raises Ended when what it contains uses up what can be paid."""
        meter, codec = self._meter, self._codec
        passed, self._uncounted = self._uncounted, 0
        if meter is None or not meter.count(passed) or codec.done:
            return
        units, audio = codec.delivered_units(), codec.audio_units()
        spent = meter.weigh(units, audio)
        if await meter.check(spent):
            return
        if not meter.may_be_covered(spent) or codec.mid_event:
            raise Ended(Interrupt.SPENT)
        if self._held is None:
            self._held, self._sent_units = [], (units, audio)
            self._sent = self._keeper.so_far() if self._keeper is not None else None

    async def _send_held(self) -> None:
        """Send what was held back, if the reported usage shows that it is paid for. Raises Ended if it does not."""
        held = b"".join(self._held or ())
        if self._meter is None or not self._meter.covers(self._codec.usage):
            raise Ended(Interrupt.SPENT)
        self._held = None
        if held:
            await self._write(held)

    async def _write(self, data: bytes, mid_event: bool = False) -> None:
        try:
            await self._exchange.write(data, mid_event)
        except asyncio.CancelledError as cancelled:
            # Interrupted in a send: the client does not read, or its token was revoked.
            why = self._exchange.explain(cancelled)
            if isinstance(why, Ended) and why.reason is Interrupt.TOTAL and self._exchange.leave():
                return
            raise why from None

    def _ends_whole(self) -> bool:
        """Whether the client has all that it asked for, of an answer whose upstream broke off; ends it then."""
        codec = self._codec
        return self._held is None and isinstance(codec, Conversion) and codec.end_whole()

    def _release_connection(self, reusable: bool) -> None:
        """Give the connection back, once the upstream has ended the body after its end marker."""
        if reusable and not self._upstream.at_end():
            self._attempt.run.watchdog.spawn(self._upstream.drain(_DRAIN))
        else:
            self._upstream.close()

    def _record_interruption(self) -> None:
        """The client disconnected, or the portal is stopping: record what was delivered."""
        exchange = self._exchange
        gone = exchange.left or exchange.interrupted is Interrupt.CLIENT_GONE
        gone = gone and not self._attempt.run.is_cutting_off()
        stopped = interrupt_error(Interrupt.STOPPING)
        end = BrokenOff("cancelled") if gone else BrokenOff("failed", stopped.public_code or "", stopped.message)
        outcome = self._outcome(CLIENT_GONE) if gone else self._outcome(SHUTDOWN, stopped)
        self._record.submit(outcome, self._rows(end), wait=False)
