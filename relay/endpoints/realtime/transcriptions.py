"""What the upstream of one realtime session writes down of the user's speech: the money for it, and its records.

Money is held for audio before it is sent, and for commits that have not been answered. A transcription is paid from
that, then from what the session holds for its responses; when this is used up as well, the session ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from relay.billing.prices import ceiling, cost
from relay.billing.unreported import with_unreported
from relay.endpoints.realtime.connection import ENDPOINT, check_realtime_channel
from relay.endpoints.realtime.models import SessionModels
from relay.errors import RelayUnavailable
from relay.gateway.background import BackgroundRequest
from relay.gateway.charging.charge import RequestCharge, spent_error
from relay.gateway.charging.reservations import Grant
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.outcome import COMPLETED, TRUNCATED, Outcome
from relay.gateway.record import Record
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.protocols.realtime.events import RealtimeUsage
from relay.protocols.realtime.speech import Speech
from relay.protocols.token_estimate import token_units
from relay.protocols.usage import Delivered, Usage

logger: Final = logging.getLogger(__name__)
_FAILED: Final = frozenset((TRUNCATED, "upstream_error"))  # reasons for which nothing more arrives
_WAIT_SECONDS: Final = 15.0  # for the database
_AHEAD: Final = 30.0  # seconds of audio for which money is held beyond what has been sent
_HEARD_PER_SECOND: Final = 17  # tokens at most; OpenAI's models hear 10
_WRITTEN_PER_SECOND: Final = 5
# Tokens that are held beside the audio for each commit but the first that waits for its transcription.
_PER_COMMIT: Final = (2000, 500)


class Turn(BackgroundRequest):
    """The exchange of a response but the first, which has that of the handshake, or of a transcription."""

    __slots__ = ()


@asynccontextmanager
async def database_timeout() -> AsyncIterator[None]:
    """No watchdog sees the exchange of a turn. Raises RelayUnavailable."""
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            yield
    except TimeoutError:
        raise RelayUnavailable("The portal could not hold the money for a response.", retry_after=5) from None


class Transcriptions:
    """The transcriptions of one session."""

    def __init__(
        self,
        exchange: Exchange,
        caller: Caller,
        run: Runtime,
        models: SessionModels,
        lend: Callable[[int, bool], None],
        attempts: list[dict[str, object]],
    ) -> None:
        """`attempts`: that led to the session. `lend(amount, last)` frees up to an amount held for responses.

        `last`: also what the next one needs to begin.
        """
        self._exchange, self._caller, self._run, self._models, self._lend = exchange, caller, run, models, lend
        self._attempts = attempts
        self.speech = Speech()
        self.tokens = 0  # that they used
        self._hold: Grant | None = None
        self._held = (0.0, 0)  # seconds and commits that are covered
        self._dearest = 0  # nano-USD of the most expensive one
        self._over = False  # the session has ended: nothing is held for it any more
        self.silent = False  # the upstream has closed: what it owes never comes

    @property
    def busy(self) -> bool:
        """Whether the upstream owes a transcription."""
        return self.speech.commits > 0

    # -- money -------------------------------------------------------------------------------------------------------

    async def hold(self) -> None:
        """Hold the money for what has been said. Raises InsufficientQuota, RelayUnavailable."""
        seconds, commits = self.speech.seconds, self.speech.commits
        covered = self._held
        if self._over or not self._caller.limited or (seconds <= covered[0] and commits <= covered[1]):
            return
        grant, need = self._grant(), self._most(seconds, commits)
        ample = self._most(seconds + _AHEAD, commits)
        if grant.amount < need:
            await self._extend(grant, ample - grant.amount)
            if grant.over:  # meanwhile the session has ended, or its reservation
                await self.hold()
                return
        # Audio leaves the next response what it needs to begin; a commit may be the last thing that is paid for.
        for last in (False, True) if commits > covered[1] else (False,):
            if grant.amount < need:
                self._lend(need - grant.amount, last)
                grant.take_spare(need - grant.amount)
        if grant.amount < need:
            raise spent_error()
        self._held = (seconds + _AHEAD if grant.amount >= ample else seconds, commits)

    def _most(self, seconds: float, commits: int) -> int:
        """What so much costs by the most expensive of the models that write it down, in nano-USD."""
        return max(self._cost_by(name, seconds, commits) for name in self.speech.models)

    def _cost_by(self, name: str, seconds: float, commits: int) -> int:
        charge = self._charge(name, self._turn())
        more, audio = max(0, commits - 1), math.ceil(seconds)
        into, out = audio * _HEARD_PER_SECOND, audio * _WRITTEN_PER_SECOND
        price = charge.price(self._models.route_of(name), into) if charge is not None else None
        if charge is None or price is None:
            return 0
        each = max(self._dearest, ceiling(price, _PER_COMMIT[0], _PER_COMMIT[1], charge.multiplier))
        heard = ceiling(price, into, out, charge.multiplier, Usage(milliseconds=audio * 1000))
        # What an upstream hears at a commit without audio is not known before the first: then as the dearest so far.
        return more * each + (max(heard, self._dearest) if commits else heard)

    def _grant(self) -> Grant:
        """What is held, from the reservation of the current day."""
        held, turn = self._hold, self._turn()
        if held is not None and held.reservation is not None:
            day = self._run.reservations.days.of(turn.wall)
            if not held.reservation.closed and held.scope.day == day:
                return held
            held.drop()
            self._held = (0.0, 0)
        self._hold = self._run.reservations.empty_grant(turn, self._caller)
        return self._hold

    async def _extend(self, grant: Grant, more: int) -> None:
        async with database_timeout():
            await self._run.reservations.extend(self._turn(), grant, self._caller.budgets, more)

    async def _cover(self, amount: int) -> Grant:
        """The grant of a transcription that has been made, from whose reservation it can be paid as far as possible."""
        held = self._grant()
        reservation = held.reservation
        if reservation is None:
            return held.sibling()
        if held.amount + reservation.spare < amount:
            missing = amount - held.amount - reservation.spare
            # In the name of the session, which nothing interrupts then: what has been made is recorded.
            with contextlib.suppress(RelayUnavailable):
                await self._run.reservations.extend(self._exchange, held, self._caller.budgets, missing)
        if held.amount + reservation.spare < amount:
            self._lend(amount - held.amount - reservation.spare, True)
        held.give_back(held.amount)
        self._held = (0.0, 0)
        return held.sibling()

    # -- records -----------------------------------------------------------------------------------------------------

    async def record(self, used: RealtimeUsage) -> None:
        """Record a transcription, and wait until that is on disk. Raises RelayUnavailable.

        At the price of its own model if the portal has one, otherwise at that of the session's model.
        """
        spoken = self.speech.finished(used.item_id)
        if spoken is None:
            return  # it has been charged
        name = spoken.model or self.speech.model
        turn = self._turn()
        charge = self._charge(name, turn)
        if charge is None:
            return
        written = token_units(used.transcript.encode("utf-8", "replace"))
        usage = measured = _estimate(spoken.seconds, written)
        price = charge.price(self._models.route_of(name), (used.usage or measured).input or measured.input)
        if used.usage is not None:
            usage = with_unreported(price, used.usage, measured)[0] if price is not None else used.usage
        amount = cost(price, usage, charge.multiplier) if price is not None else 0
        self._dearest = max(self._dearest, amount)
        charge.grant = await self._cover(amount)
        record = self._record(turn, charge, usage, name)
        await self._exchange.committed(record.submit(self._outcome(COMPLETED, used.usage, written, usage)))

    def close(self, reason: str) -> None:
        """The session has ended: what the upstream owes is estimated, unless it was the upstream that ended it."""
        held, self._over = self._hold, True
        for spoken in self.speech.unfinished(self.silent or reason in _FAILED):
            turn, name, seconds = self._turn(), spoken.model or self.speech.model, spoken.seconds
            charge = self._charge(name, turn)
            if charge is None:
                continue
            turn.ended_by = self._exchange.ended_by
            if held is not None:
                held.give_back(held.amount)
                charge.grant = held.sibling()
            else:
                charge.grant = self._run.reservations.empty_grant(turn, self._caller)
            usage = _estimate(seconds, seconds * _WRITTEN_PER_SECOND)
            self._record(turn, charge, usage, name).submit(
                self._outcome(reason, None, float(usage.output), usage), wait=False
            )
        if held is not None:
            held.drop()
        self._hold = None

    def _outcome(self, reason: str, usage: Usage | None, written: float, counted: Usage) -> Outcome:
        return Outcome(reason, 200, usage, delivered=Delivered(0, lambda: written) if counted is not usage else None)

    def _record(self, turn: Turn, charge: RequestCharge, usage: Usage, name: str) -> Record:
        request = GatewayRequest(
            ENDPOINT,
            charge.model.name,
            partial(check_realtime_channel, self._run),
            stream=True,
            prompt_tokens=usage.input,
            output_limit=usage.output,
            units=Usage(milliseconds=usage.milliseconds),
        )
        public = self._models.public(name) or charge.model.name
        record = Record(turn, self._run.reservations, request, public, charge)
        record.candidate, record.upstream_model, record.sent = self._models.candidate_of(name), name, True
        record.attempts = [*self._attempts]
        self.tokens += usage.input + usage.output
        return record

    def _turn(self) -> Turn:
        turn = Turn(self._caller, b"")
        turn.ip, turn.client = self._exchange.ip, self._exchange.client
        return turn

    def _charge(self, name: str, turn: Turn) -> RequestCharge | None:
        """The charge of a transcription by the model of this name; None where nothing has a price any more."""
        snapshot, run = snapshot_cache.snapshot, self._run
        own, session = self._models.find(name), snapshot.models.get(self._models.session)
        model = next(
            (one for one in (own, session) if one is not None and (one.priced or run.fallback_price is not None)), None
        )
        if model is None:
            logger.warning("the transcription of a realtime session has no price: %s", name)
            return None
        multiplier = snapshot.terms(self._caller).multiplier
        return RequestCharge(run.reservations, self._caller, model, multiplier, run.fallback_price, turn.wall)


def _estimate(seconds: float, written: float) -> Usage:
    """The usage of a transcription that reports none."""
    heard = math.ceil(seconds * 10)  # OpenAI's models hear a token in 100 ms
    return Usage(input=heard, audio_input=heard, output=math.ceil(written), milliseconds=math.ceil(seconds * 1000))
