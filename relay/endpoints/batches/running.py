"""A batch that this worker runs: its lines, its slots, how far it is and whether it has to end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import ClassVar, Final

from portal.lib import clock
from relay.endpoints.batches.lines import LineQueue, Progress
from relay.endpoints.batches.slots import BatchSlots, Slot
from relay.endpoints.error_shapes import ANTHROPIC_ERRORS
from relay.errors import OPENAI_ERRORS, RelayError
from relay.gateway.background import BackgroundRequest
from relay.gateway.exchange.interrupts import Interrupt
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.single_flight import SingleFlight
from relay.models import Batch
from relay.models.batch import BatchWait
from relay.protocols.anthropic_messages.batches import PATH as MESSAGES
from relay.storage import batch_claims, batches
from relay.storage.batch_input import BatchInput

_SHOW_SECONDS: Final = 2.0  # between writes of how far it is
_CALLER_SECONDS: Final = 1.0  # for which its token is not read again
_WAKE_SECONDS: Final = 5.0  # after which whoever waits looks around
_TURN_SECONDS: Final = 5.0  # without a slot, after which it is shown that it waits for one
_SOON: Final = 60.0  # seconds that a wait may take which is part of the usual pace, as a limit a minute is
STUCK: Final = (BatchWait.MONEY, BatchWait.OPERATOR)  # until somebody does something, or not for ever
_ENDLESS: Final = (*STUCK, BatchWait.ROOM, BatchWait.TURN)  # nobody knows when they end
NO_INPUT: Final = BatchInput((), "", ())


class LineRequest(BackgroundRequest):
    """The request on a line of a batch."""

    __slots__ = ()
    waits_for_money: ClassVar[bool] = False
    withdraws_record: ClassVar[bool] = False  # it is looked for when the database is back


class RunningBatch:
    """A batch that this worker runs."""

    def __init__(self, batch: Batch, owner: str, slots: BatchSlots) -> None:
        self.batch, self.owner = batch, owner
        self.status = str(batch.status)
        self.error_shape = ANTHROPIC_ERRORS if batch.endpoint == MESSAGES else OPENAI_ERRORS
        self.user_id = int(batch.user_id)
        self.begun_at = time.monotonic()
        self.makes_room = False  # it is put back, for others that wait
        self.lost = False  # another worker holds its lease now
        self.no_room = False  # for more answers
        self.input = NO_INPUT  # as far as it was read
        self.input_bytes = 0  # in memory
        self.ending = asyncio.Event()  # no request of it is begun any more
        self.changed = asyncio.Event()  # a line came back, or the batch ends
        self.lines = LineQueue((), time.monotonic())
        self.ok, self.failed = int(batch.succeeded), int(batch.failed)  # lines with an outcome, as they were last shown
        self.counted = False  # those are what is stored
        self.complaint: RelayError | None = None  # why lines were given up
        self.unsure: set[int] = set()  # lines whose answer may be written, and charged, when the database is back
        self.requests: set[LineRequest] = set()  # that are being made
        self._slots = slots
        self._asked: set[Slot] = set()
        self._held_at = self.begun_at  # it held a slot last
        self._progress = Progress()
        self._shown: batch_claims.Standing | None = None
        self._shown_at = 0.0
        self._caller: Caller | None = None
        self._caller_at = 0.0
        self._reading: SingleFlight[Caller | None] = SingleFlight()

    @property
    def expired(self) -> bool:
        return clock.now() >= self.batch.expires_at

    @property
    def active(self) -> bool:
        return not self.lost and not self.expired and self.status == Batch.Status.IN_PROGRESS

    @property
    def must_end(self) -> bool:
        """Whether it was cancelled or has expired: it has to end whatever fails."""
        return self.status == Batch.Status.CANCELLING or self.expired

    @property
    def outcome(self) -> str:
        if self.status == Batch.Status.CANCELLING:
            return Batch.Status.CANCELLED
        return Batch.Status.EXPIRED if self.expired else Batch.Status.COMPLETED

    @property
    def ends(self) -> bool:
        return self.ending.is_set()

    @property
    def waits(self) -> bool:
        return self.lines.waiting(time.monotonic()) is not None

    def make_room(self) -> None:
        """Let another batch have its place: it goes on later."""
        self.makes_room = True
        self.end()

    def seen(self, status: str | None) -> None:
        """This was its status in the database a moment ago; None: another worker has it.

        Only clients change it beside this worker, by cancelling: what was read before the batch began is no news.
        """
        self.lost = status is None
        if status == Batch.Status.CANCELLING or status in Batch.ENDED:
            self.status = str(status)
        if self.lost or self.must_end:
            self.end()

    def end(self) -> None:
        """Begin nothing more. Requests that an upstream has are finished."""
        self.ending.set()
        self.changed.set()
        for slot in [*self._asked]:  # requests that are being made go on without
            slot.give_back()
        for request in self.requests:
            if not request.asked:
                request.end(Interrupt.CANCELLED)

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[bool]:
        """Wait for a slot and hold it; False when the batch ends before."""
        slot = self._slots.ask(self.user_id, self.batch.token_id, self.batch.pk)
        self._asked.add(slot)
        try:
            yield await slot.granted and self.active and not self.ends
        finally:
            if slot.held:
                self._held_at = time.monotonic()
            self._asked.discard(slot)
            slot.give_back()

    async def pause(self, seconds: float | None) -> None:
        """Wait so long, None: for a while, or until a line comes back or the batch ends."""
        self.changed.clear()
        if not self.ending.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.changed.wait(), min(seconds or _WAKE_SECONDS, _WAKE_SECONDS))

    async def caller(self) -> Caller | None:
        """The caller that it is charged to; None when the token is gone. It may be active no longer."""
        if self._caller is None or time.monotonic() - self._caller_at > _CALLER_SECONDS:
            return await self._reading.read("", self._read_caller)
        return self._caller

    async def _read_caller(self) -> Caller | None:
        now = time.monotonic()
        self._caller, self._caller_at = await _caller(self.batch), now
        return self._caller

    def _waiting(self, now: float) -> tuple[BatchWait | str, float | None, float | None]:
        """What it waits for, empty for nothing; since when; until when at the soonest, None: not known."""
        since, until = None, None
        reason: BatchWait | str = ""
        if (waits := self.lines.waiting(now)) is not None:
            reason, since, until = waits
        elif self._asked and not any(slot.held for slot in self._asked):
            asked = max(self._held_at, min(slot.asked_at for slot in self._asked))
            if now - asked >= _TURN_SECONDS:
                reason, since = BatchWait.TURN, asked
        return (BatchWait.ROOM, since, None) if self.no_room else (reason, since, until)

    def standing(self) -> batch_claims.Standing | None:
        """How far it is, when that is to be written; None: nothing has changed, or it was written just now."""
        now = time.monotonic()
        if now - self._shown_at < _SHOW_SECONDS or not self.counted:
            return None
        reason, since, until = self._waiting(now)
        left = self._progress.remaining(self.ok + self.failed, self.batch.total, now)
        if left is not None and (reason in _ENDLESS or (until is not None and until - now > _SOON)):
            left = None

        def at(moment: float | None) -> datetime | None:
            return read_at + timedelta(seconds=round(moment - now)) if moment is not None else None

        read_at = clock.now()
        standing = batch_claims.Standing(
            self.ok, self.failed, str(reason), at(since), at(until), at(now + left) if left is not None else None
        )
        self._shown_at = now
        if standing == self._shown:
            return None
        self._shown = standing
        return standing


async def _caller(batch: Batch) -> Caller | None:
    """The caller that a batch is charged to; None when the token is gone."""
    digest = await snapshot_cache.in_thread(batches.batch_token_digest, batch)
    return (snapshot_cache.cached(digest) or await snapshot_cache.caller(digest)) if digest else None
