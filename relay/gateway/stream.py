"""A running stream: from the upstream's bytes to the client's, with a record on disk before the last of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from relay.billing.ledger.rows import RowWrite
from relay.errors import InternalError, RelayError, UpstreamTruncated
from relay.gateway.attempt import Upstream, from_interrupt
from relay.gateway.charging.charge import Meter
from relay.gateway.exchange import Ended, Exchange, Interrupt
from relay.gateway.record import CLIENT_GONE, COMPLETED, INTERNAL, SHUTDOWN, Record, end_reason
from relay.protocols.codec import Codec
from relay.providers.classify import Failure, stream_error

if TYPE_CHECKING:
    from relay.gateway.failover import Trial

logger: Final = logging.getLogger(__name__)
DONE: Final = b"data: [DONE]\n\n"
_DRAIN: Final = 0.5  # seconds to wait for the upstream to close its answer after its end marker, so that its connection can be kept


class Pump:
    """Moves one stream. `run` never raises but for cancellation, and always leaves a record."""

    def __init__(
        self,
        exchange: Exchange,
        upstream: Upstream,
        codec: Codec,
        record: Record,
        trial: Trial,
        primed: list[bytes],
        cutting_off: Callable[[], bool],
        meter: Meter | None,
        rows: Callable[[], Sequence[RowWrite]] | None = None,
        ending: bytes | None = None,
    ) -> None:
        """`rows`: what is written together with the record of a whole answer. `ending`: what goes out at the end in place of a marker that is missing."""
        self._exchange, self._upstream, self._codec, self._record, self._trial = exchange, upstream, codec, record, trial
        self._primed = primed
        self._cutting_off = cutting_off
        self._meter = meter
        self._rows = rows
        self._ending = DONE if ending is None else ending

    async def run(self) -> None:
        """Called when the response's head has been sent."""
        exchange, record, codec = self._exchange, self._record, self._codec
        error: RelayError | None = None
        detail, broke = "", False
        try:
            try:
                await self._move()
                if codec.error is not None:
                    error, detail = stream_error(codec.error)
                    broke = True
                elif not codec.complete:
                    error = UpstreamTruncated("The upstream cut its answer off before the end. The text so far is incomplete; try again.")
                    detail, broke = "the connection was closed before the end of the answer", True
                elif codec.done:
                    if codec.failed is not None:
                        error, detail = stream_error(codec.failed)
                    await self._drain()
            except Failure as failure:
                error = UpstreamTruncated("The connection to the upstream broke in the middle of the answer. Try again.")
                detail, broke = failure.detail, True
            except Ended as ended:
                error = from_interrupt(ended).error
                detail, broke = ended.reason.value, ended.reason is Interrupt.IDLE
            except RelayError as unavailable:  # nobody could say whether there is money for more
                error = unavailable
                detail = "the database did not answer"
            self._upstream.close()
            if broke:
                self._trial.broke(detail)
            reason = COMPLETED if error is None else end_reason(error)
            rows = self._rows() if self._rows is not None and codec.done else ()
            future = record.submit(reason, 200, codec.usage, error, detail, codec.text_units, rows=rows)
            try:
                await exchange.committed(future)
            except RelayError as unavailable:
                error = unavailable if codec.failed is not None else error or unavailable
            if error is not None and (codec.failed is None or error.wire_status == 503):
                await self._write_failure(error)
            else:
                await exchange.write_last(codec.terminal or self._ending)
        except asyncio.CancelledError:
            self._upstream.close()
            self._left()
            raise
        except Exception:
            logger.exception("a stream failed", extra={"request_id": exchange.request_id})
            self._upstream.close()
            fault = InternalError()
            record.submit(INTERNAL, 200, codec.usage, fault, "", codec.text_units, wait=False)
            await self._write_failure(fault)

    async def _write_failure(self, error: RelayError) -> None:
        """Say why the stream ends. Where nothing can be said, inside audio, the answer is left unfinished, and the server cuts it off."""
        codec = self._codec
        said = codec.failure(error.message, error.wire_type, error.wire_code, error.param)
        if said:
            await self._exchange.write_last((b"\n\n" if codec.mid_event else b"") + said)

    async def _move(self) -> None:
        """Pass bytes on until the upstream's end, its end marker or its error."""
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
            # Interrupted in a send: the client does not read, or its token is gone.
            raise self._exchange.explain(cancelled) from None

    async def _drain(self) -> None:
        """Read what follows the end marker, which is nothing but the end of the body, so that the connection can be used again."""
        if self._upstream.at_end():
            return
        try:
            async with asyncio.timeout(_DRAIN):
                while await self._upstream.read():
                    continue
        except (TimeoutError, Failure, Ended):
            pass  # the answer is whole; only the connection is lost

    def _left(self) -> None:
        """The client left, or the portal stops: record what was delivered."""
        gone = self._exchange.interrupted is Interrupt.CLIENT_GONE and not self._cutting_off()
        self._record.submit(CLIENT_GONE if gone else SHUTDOWN, 200, self._codec.usage, None, "", self._codec.text_units, wait=False)
