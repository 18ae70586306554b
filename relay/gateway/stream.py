"""Streams an answer from the upstream to the client. The record is on disk before the last bytes are sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from relay.billing.ledger.rows import RowWrite
from relay.errors import InternalError, RelayError, UpstreamFailed, UpstreamTruncated
from relay.gateway.attempt import Attempt, interrupt_failure
from relay.gateway.exchange import Ended, Interrupt
from relay.gateway.record import CLIENT_GONE, COMPLETED, INTERNAL, SHUTDOWN, Outcome, end_reason
from relay.gateway.replies import EventStream
from relay.gateway.upstream import GARBAGE, UpstreamAnswer
from relay.protocols.codec import Codec
from relay.providers.classify import Failure, stream_error
from relay.providers.failures import FailureClass

logger: Final = logging.getLogger(__name__)
# Seconds to wait for the upstream to end its response after the end marker, so that the connection can be reused.
_DRAIN: Final = 0.5
Rows = Callable[[], Sequence[RowWrite]]


async def stream_answer(
    attempt: Attempt, upstream: UpstreamAnswer, codec: Codec, output_limit: int | None, rows: Rows | None = None
) -> EventStream:
    """Wait for the first event, which decides about the status, and return a response whose pump sends the rest.

    `output_limit`: tokens of each answer; None: no limit. `rows`: written in the same commit as the record of a
    complete answer. Raises Failure, Ended, CancelledError.
    """
    primed: list[bytes] = []
    while not codec.started and codec.error is None and not codec.done:
        data = await upstream.read()
        out = codec.feed(data) if data else codec.finish()
        if out:
            primed.append(out)
        if not data:
            break
    if codec.error is not None and not codec.started:
        raise attempt.error_in_body(codec.error)
    if not codec.started:
        detail = f"the answer ({upstream.content_type or 'no content type'}) ended without a single event"
        raise Failure(FailureClass.TRANSIENT, UpstreamFailed(GARBAGE), 200, detail)
    attempt.answered()
    attempt.record.delivered = codec.delivered_units
    pump = Pump(attempt, upstream, codec, output_limit, primed, rows)
    attempt.add_headers()
    return EventStream(pump.run, codec.content_type)


class Pump:
    """Sends one stream. `run` raises nothing but CancelledError, and always submits a record."""

    def __init__(
        self,
        attempt: Attempt,
        upstream: UpstreamAnswer,
        codec: Codec,
        output_limit: int | None,
        primed: list[bytes],
        rows: Rows | None,
    ) -> None:
        """`primed`: the bytes that the codec has returned already."""
        self._attempt, self._upstream, self._codec = attempt, upstream, codec
        self._exchange, self._record = attempt.exchange, attempt.record
        self._meter = attempt.record.charge.meter(attempt.exchange, output_limit)
        self._primed, self._rows = primed, rows

    async def run(self) -> None:
        """Send the stream. Called when the response's headers have been sent."""
        exchange, record, codec = self._exchange, self._record, self._codec
        try:
            error, detail, broke = await self._run_to_end()
            self._upstream.close()
            if broke:
                self._attempt.broke_off(detail)
            rows = self._rows() if self._rows is not None and codec.done else ()
            reason = COMPLETED if error is None else end_reason(error)
            future = record.submit(Outcome(reason, 200, codec.usage, error, detail, codec.text_units), rows)
            try:
                await exchange.committed(future)
            except RelayError as unavailable:
                error = unavailable if codec.failed is not None else error or unavailable
            if error is not None and (codec.failed is None or error.http_status == 503):
                await self._write_failure(error)
            else:
                await exchange.write_last(codec.terminal or codec.ending)
        except asyncio.CancelledError:
            self._upstream.close()
            self._record_interruption()
            raise
        except Exception:
            logger.exception("a stream failed", extra={"request_id": exchange.request_id})
            self._upstream.close()
            fault = InternalError()
            record.submit(Outcome(INTERNAL, 200, codec.usage, fault, "", codec.text_units), wait=False)
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
            return *stream_error(codec.error), True
        if not codec.complete:
            error = UpstreamTruncated(
                "The upstream cut its answer off before the end. The text so far is incomplete; try again."
            )
            return error, "the connection was closed before the end of the answer", True
        if not codec.done:
            return None, "", False
        failed = (None, "") if codec.failed is None else stream_error(codec.failed)
        await self._drain()
        return *failed, False

    async def _write_failure(self, error: RelayError) -> None:
        """Send an error event. Audio has none: its answer stays incomplete, and the server disconnects the client."""
        codec = self._codec
        event = codec.failure(error.message, error.public_type, error.public_code, error.param)
        if event:
            await self._exchange.write_last((b"\n\n" if codec.mid_event else b"") + event)

    async def _forward(self) -> None:
        """Send bytes until the upstream's end, its end marker or its error."""
        codec, upstream, exchange = self._codec, self._upstream, self._exchange
        last = len(self._primed) - 1
        for index, piece in enumerate(self._primed):
            await self._write(piece, index == last and codec.mid_event)
        self._primed = []
        while not codec.done and codec.error is None:
            data = await upstream.read()
            if not data:
                tail = codec.finish()
                if tail:
                    await self._write(tail if tail.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")) else tail + b"\n\n")
                break
            out = codec.feed(data)
            if out:
                await self._write(out, codec.mid_event)
                if self._meter is not None:
                    await self._meter.check(codec.delivered_units())
        exchange.quiet_since = 0.0

    async def _write(self, data: bytes, mid_event: bool = False) -> None:
        try:
            await self._exchange.write(data, mid_event)
        except asyncio.CancelledError as cancelled:
            # Interrupted in a send: the client does not read, or its token was revoked.
            raise self._exchange.explain(cancelled) from None

    async def _drain(self) -> None:
        """Read to the end of the body after the end marker, so that the connection can be reused."""
        if self._upstream.at_end():
            return
        try:
            async with asyncio.timeout(_DRAIN):
                while await self._upstream.read():
                    continue
        except (TimeoutError, Failure, Ended):
            pass  # the answer is complete; only the connection is lost

    def _record_interruption(self) -> None:
        """The client disconnected, or the portal is stopping: record what was delivered."""
        gone = self._exchange.interrupted is Interrupt.CLIENT_GONE and not self._attempt.run.is_cutting_off()
        outcome = Outcome(CLIENT_GONE if gone else SHUTDOWN, 200, self._codec.usage, None, "", self._codec.text_units)
        self._record.submit(outcome, wait=False)
