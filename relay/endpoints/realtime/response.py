"""One response of a realtime session, from the hold of its money to its usage record."""

from __future__ import annotations

import asyncio
from typing import Final

from relay.endpoints.realtime.transcriptions import Turn, database_timeout
from relay.errors import RelayError
from relay.gateway.charging.charge import spent_error
from relay.gateway.charging.meter import Meter, meter_of
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.outcome import COMPLETED, ENDED, Outcome
from relay.gateway.record import Record
from relay.protocols.usage import Delivered, Usage

_OURS: Final = frozenset((ENDED, "timeout"))  # reasons for which an upstream is closed that was at work


class RealtimeResponse:
    """One response, from the hold of its money to its record."""

    __slots__ = ("_audio", "_size", "_units", "exchange", "heard", "meter", "probable_input", "record", "refusal")

    def __init__(self, record: Record, exchange: Exchange) -> None:
        self.record, self.exchange = record, exchange
        self.heard = (0.0, 0.0)  # what the conversation had counted when it began
        self.probable_input: int | None = None  # tokens, when it began; None: it has not
        self.meter: Meter | None = meter_of(record.charge, exchange)
        self.refusal: RelayError | None = None  # why nothing is held for it
        self._units = self._audio = 0.0  # estimated tokens that arrived
        self._size = 0

    async def count(self, units: float, audio: float, size: int) -> None:
        """Count a part that is about to be sent. Raises InsufficientQuota when it is not paid for."""
        self._units, self._audio, self._size = self._units + units, self._audio + audio, self._size + size
        meter = self.meter
        if meter is not None and meter.count(size):
            async with database_timeout():
                if not await meter.check(meter.weigh(self._units, self._audio)):
                    raise spent_error()

    async def hold_input(self, tokens: int, parts: Usage) -> bool:
        """Hold the cost of this input, if it is more than was held before; returns False when it cannot be paid.

        `parts`: tokens of it that are of audio and images.
        """
        self.record.prompt_tokens = max(tokens, self.record.prompt_tokens)
        async with database_timeout():
            return await self.record.charge.hold_input(self.exchange, tokens, parts)

    def give_up(self, most: int, keep: int = -1) -> int:
        """Give back what is held, but for `keep`, or for what has been delivered; returns how much."""
        charge = self.record.charge
        weight = self.meter.weigh(self._units, self._audio) if self.meter is not None else 0.0
        given = charge.give_up(most, charge.least(weight) if keep < 0 else keep)
        if given and self.meter is not None:
            self.meter.refresh(weight)
        return given

    async def hold_least(self) -> bool:
        """Hold what a short response needs, if that has been given up; returns False when it cannot be paid."""
        charge = self.record.charge
        grant, least = charge.grant, charge.least()
        if grant is None or grant.reservation is None or grant.amount >= least:
            return True
        async with database_timeout():
            return await charge.hold_more(self.exchange, least - grant.amount)

    def units(self) -> float:
        return self._units

    def resume(self, input_tokens: int, units: float) -> None:
        """Take over what another worker has counted."""
        self.probable_input, self._units = input_tokens, units

    def submit(
        self,
        reason: str,
        usage: Usage | None = None,
        error: RelayError | None = None,
        wait: bool = True,
        answered: bool = False,
    ) -> asyncio.Future[None] | None:
        """Pass its record to the writer; its usage is estimated where none is reported.

        `answered`: it is charged as used, whatever ended it.
        """
        if self.probable_input is not None:
            self.record.prompt_tokens = self.probable_input
        delivered = Delivered(
            self._size,
            lambda: self._units,
            lambda: self._audio,
            reason == COMPLETED or answered,
            lambda: self._audio > 0,
        )
        outcome = Outcome(reason, 200, usage, error, "", delivered, reason in _OURS, answered)
        future = self.record.submit(outcome, wait=wait)
        if isinstance(self.exchange, Turn):  # the handshake goes on with its connection
            for callback in self.exchange.at_end:
                callback()
            self.exchange.at_end.clear()
        return future
