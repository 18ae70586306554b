"""The meter of a running answer: compares what it has delivered with what is held for it."""

from __future__ import annotations

from typing import Final

from relay.billing.prices import affordable_output, ceiling
from relay.gateway.charging.charge import MIN_OUTPUT, STREAM_STEP, RequestCharge
from relay.gateway.exchange.exchange import Exchange
from relay.protocols.usage import Usage

_LEAST_STEP: Final = 64  # tokens by which the reservation of a stream grows that exceeds its output limit
_EXTEND_AT: Final = 0.8  # share of its reservation from which a stream without a limit reserves more
_ESTIMATE_ERROR: Final = 1.5  # by which an estimate of text may exceed its tokens: English has nearly five characters
_BYTES_PER_TOKEN: Final = 3  # at least, by the estimate of `relay.protocols.token_estimate`


def weight(data: bytes) -> int:
    """The bytes of a stream as a meter counts them: four of ASCII make a token at most, three of other scripts."""
    return len(data) * 3 // 4 if data.isascii() else len(data)


class Meter:
    """Compares what a stream has delivered with its reservation, and extends that as the stream grows.

    Counting the delivered tokens costs about a microsecond for each event, so it is not done before so many bytes have
    been passed on (`count`) that they could be too many tokens.
    """

    __slots__ = ("_charge", "_covered", "_exchange", "_spent", "_step", "room")

    def __init__(self, charge: RequestCharge, exchange: Exchange) -> None:
        self._charge, self._exchange = charge, exchange
        self._step = STREAM_STEP
        if charge._promised:
            self._step = min(STREAM_STEP, max(_LEAST_STEP, charge._promised // 4))
        self._covered = self._tokens()
        self._spent = False
        self.room = 0  # bytes of the upstream, by their `weight`, that may pass before the next check
        self._set_room(0.0)

    def _tokens(self) -> int:
        """The tokens that are paid for, but at least those that the upstream was told it may send.

        The estimate of a prompt may be too high: what it leaves for the answer may then be less.
        """
        charge = self._charge
        free = (charge.grant.amount if charge.grant else 0) - charge._prompt_cost
        return max(affordable_output(charge._highest_price, free, charge.multiplier), charge._promised)

    @property
    def _threshold(self) -> float:
        """The delivered tokens from which more is reserved."""
        return self._covered if self._charge._promised or self._spent else _EXTEND_AT * self._covered

    def _set_room(self, delivered: float) -> None:
        self.room = max(0, int((self._threshold - delivered) * _BYTES_PER_TOKEN))

    def refresh(self, delivered: float) -> None:
        """Take over that the charge has given up a part of what it held."""
        self._covered = self._tokens()
        self._set_room(delivered)

    def count(self, size: int) -> bool:
        """Count bytes of the upstream that are passed on, by their weight; returns whether to call `check`."""
        self.room -= size
        return self.room < 0

    def weigh(self, units: float, audio: float) -> float:
        """Delivered tokens, of which some are of audio, as that many of the dearest class, in which money is held."""
        price = self._charge._highest_price
        dearest = price.dearest_output
        if dearest <= 0:
            return units
        text = max(price.output, price.reasoning or 0)
        sound = price.output if price.audio_output is None else price.audio_output
        return (max(0.0, units - audio) * text + audio * sound) / dearest

    async def check(self, delivered: float) -> bool:
        """Extend the reservation if necessary; returns whether it covers what was `delivered`, as `weigh` has it."""
        grant = self._charge.grant
        if delivered > self._threshold and not self._spent and grant is not None:
            tokens = self._step + max(0, round(delivered) - self._covered)
            more = ceiling(self._charge._highest_price, 0, tokens, self._charge.multiplier)
            self._spent = not await self._charge._reservations.extend(
                self._exchange, grant, self._charge._caller.budgets, more
            )
            if self._spent and self._charge._kept:  # the balance has nothing else: the prompt's estimate has to do
                self._charge.take_kept(more)
                self._spent = False
            self._covered = self._tokens()
            self._charge._need = grant.amount - self._charge._kept
        self._set_room(delivered)
        return delivered <= self._covered

    def may_be_covered(self, delivered: float) -> bool:
        """Whether a stream whose limit is covered may be, though by the estimate it exceeds that."""
        return bool(self._charge._promised) and delivered <= _ESTIMATE_ERROR * self._covered + MIN_OUTPUT

    def covers(self, usage: Usage | None) -> bool:
        """Whether the reservation covers the answer of a reported usage."""
        return usage is not None and self.weigh(usage.output, min(usage.output, usage.audio_output)) <= self._covered


def meter_of(charge: RequestCharge, exchange: Exchange) -> Meter | None:
    """A meter for a stream, which stops it when what pays for it is used up; None where nothing limits that.

    Also for streams with an output limit: not every upstream keeps to it.
    """
    if charge.grant is None or charge.grant.reservation is None:
        return None
    return Meter(charge, exchange)
