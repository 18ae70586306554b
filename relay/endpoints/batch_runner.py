"""Runs batches in the background, through the same pipeline as the requests of clients.

One worker runs a batch at a time; if it stops, another one continues. What waits (for room, between two tries) keeps
nobody else waiting: a batch without room is put back, and a request that failed for a moment gives its slot back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from decimal import Decimal
from functools import partial
from typing import Final

from django.http.response import HttpResponseBase

from portal import limits
from portal.lib import clock
from relay.billing.ledger.rows import RowWrite, insert
from relay.billing.prices import ONE
from relay.endpoints.batch_slots import BatchSlots, Slot
from relay.endpoints.passthrough import pass_through
from relay.endpoints.room import user_room
from relay.endpoints.text.chat import chat_completions
from relay.endpoints.text.responses import create_response
from relay.errors import RelayError, RelayUnavailable, Stopping, StorageFull
from relay.gateway.background import BackgroundRequest, run_in_background
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller, CallerState
from relay.models import Batch, BatchLine
from relay.storage import batches
from relay.storage.batch_input import ENDPOINTS, BatchInput, BatchInputLine, answer_line, refusal

logger: Final = logging.getLogger(__name__)
_POLL_SECONDS: Final = 2.0  # between searches for batches that no worker runs
_RENEW_SECONDS: Final = 1.0  # between renewals of the leases
_MAX_TRIES: Final = 6
_LONGEST_PAUSE: Final = 60.0
_ROOM_PAUSE: Final = 30.0  # seconds after which a batch is tried again that has no room
_TRANSIENT_STATUSES: Final = frozenset((408, 429, 500, 502, 503, 504))
_NO_INPUT: Final = BatchInput((), "", ())
_wake: asyncio.Event | None = None


def wake() -> None:
    """Look for batches now: one was created or cancelled."""
    if _wake is not None:
        _wake.set()


class RunningBatch:
    """A batch that this worker runs."""

    def __init__(self, batch: Batch, owner: str, slots: BatchSlots) -> None:
        self.batch, self.owner = batch, owner
        self.status = str(batch.status)
        self.lost = False  # another worker holds its lease now
        self.no_room = False  # for more answers
        self.input_bytes = 0  # in memory
        self.ending = asyncio.Event()  # no request of it is begun any more
        self._slots = slots
        self._asked: set[Slot] = set()

    @property
    def expired(self) -> bool:
        return clock.now() >= self.batch.expires_at

    @property
    def active(self) -> bool:
        return not self.lost and not self.expired and self.status == Batch.Status.IN_PROGRESS

    @property
    def outcome(self) -> str:
        if self.status == Batch.Status.CANCELLING:
            return Batch.Status.CANCELLED
        return Batch.Status.EXPIRED if self.expired else Batch.Status.COMPLETED

    def renewed(self, status: str | None) -> None:
        """Its lease was renewed, and this is its status; None: another worker has it."""
        self.lost, self.status = status is None, status or self.status
        if self.lost or self.expired or self.status == Batch.Status.CANCELLING:
            self.ending.set()
            for slot in [*self._asked]:  # requests that are being made go on without
                slot.give_back()

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[bool]:
        """Wait for a slot and hold it; False when the batch ends before."""
        slot = self._slots.ask(self.batch.user_id)
        self._asked.add(slot)
        try:
            yield await slot.granted and self.active
        finally:
            self._asked.discard(slot)
            slot.give_back()

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until the batch ends."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ending.wait(), seconds)


async def run_batches(run: Runtime) -> None:
    """Run batches until cancelled: the background task of every worker."""
    global _wake
    _wake = asyncio.Event()
    slots = BatchSlots(run.config.batch_concurrency)
    running: dict[RunningBatch, asyncio.Task[None]] = {}
    renewal = asyncio.ensure_future(_renew_leases(running))
    try:
        while True:
            try:
                if not run.stopping:
                    await _start_batches(run, running, slots)
            except RelayUnavailable:
                pass  # logged
            except Exception:
                logger.exception("batches could not be looked for; the next round tries again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(_wake.wait(), _POLL_SECONDS)
            _wake.clear()
    finally:
        for task in (renewal, *running.values()):
            task.cancel()


async def _start_batches(run: Runtime, running: dict[RunningBatch, asyncio.Task[None]], slots: BatchSlots) -> None:
    """Claim the batches that fit, and begin to run them."""
    owner = run.reservations.owner
    users = await snapshot_cache.in_thread(batches.waiting_users, [one.batch.pk for one in running])
    while (user_id := next_user(users, running)) is not None:
        batch = await snapshot_cache.in_thread(batches.claim, owner, user_id, [one.batch.pk for one in running])
        if batch is None:
            users.remove(user_id)
            continue
        state = RunningBatch(batch, owner, slots)
        task = running[state] = asyncio.ensure_future(_run_batch(run, state, running.keys()))
        task.add_done_callback(partial(_on_batch_done, running, state))


def next_user(waiting: Sequence[int], running: Collection[RunningBatch]) -> int | None:
    """The user whose batch is begun next; None if none fits.

    `waiting`: users with batches that nobody runs, who waits longest first.
    """
    if len(running) >= limits.BATCHES:
        return None
    of_user = Counter(one.batch.user_id for one in running)
    counted = Counter(one.batch.user_id for one in running if not one.ending.is_set())
    everybody = counted.total()
    fit = [
        user_id
        for user_id in waiting
        if of_user[user_id] < limits.BATCHES // 2 and (everybody < limits.BATCHES_AT_ONCE or not counted[user_id])
    ]
    return min(fit, key=lambda user_id: counted[user_id], default=None)


def _on_batch_done(
    running: dict[RunningBatch, asyncio.Task[None]], state: RunningBatch, task: asyncio.Task[None]
) -> None:
    running.pop(state, None)
    wake()
    if not task.cancelled() and task.exception() is not None:
        logger.error("a batch failed here; it is tried again when its lease has run out", exc_info=task.exception())


async def _renew_leases(running: Collection[RunningBatch]) -> None:
    """Renew the leases, and read which batches have been cancelled."""
    while True:
        await asyncio.sleep(_RENEW_SECONDS)
        try:
            for owner in {one.owner for one in running}:
                own = [one for one in running if one.owner == owner]
                found = await snapshot_cache.in_thread(batches.renew, owner, [one.batch.pk for one in own])
                for one in own:
                    one.renewed(found.get(one.batch.pk))
        except RelayUnavailable:
            pass  # logged; the lease lasts longer than a short failure
        except Exception:
            logger.exception("the leases of batches could not be renewed; the next round tries again")


async def _run_batch(run: Runtime, state: RunningBatch, running: Collection[RunningBatch]) -> None:
    """Run one batch from its current state to its end, or until it has to wait."""
    batch, owner = state.batch, state.owner
    try:
        # Whose results only wait for room may have lost its input file meanwhile.
        answered = batch.finalizing_at is not None and await snapshot_cache.in_thread(batches.all_answered, batch)
        parsed = _NO_INPUT if answered else await snapshot_cache.in_slow_thread(batches.read_input, batch)
        state.input_bytes = sum(len(line.body) for line in parsed.lines)
        if not _fits_in_memory(state, running):
            await snapshot_cache.in_thread(batches.put_back, batch, owner, _ROOM_PAUSE)
            return
        if batch.status == Batch.Status.VALIDATING:
            await snapshot_cache.in_thread(batches.start_batch, batch, parsed)
            state.status = str(batch.status)
        if batch.status in Batch.ENDED:
            return
        if state.status == Batch.Status.IN_PROGRESS and not parsed.errors:
            await _answer_all(run, state, parsed)
        if run.stopping or state.lost:
            await snapshot_cache.in_thread(batches.put_back, batch, owner, 0.0)
            return
        outcome = Batch.Status.FAILED if parsed.errors else state.outcome  # errors here: the input file was deleted
        if (state.no_room and state.active) or not await snapshot_cache.in_slow_thread(
            batches.finish, batch, parsed.lines, outcome, owner, parsed.errors
        ):
            await snapshot_cache.in_thread(batches.put_back, batch, owner, _ROOM_PAUSE)
    except (RelayUnavailable, StorageFull):
        pass  # logged; the lease runs out, and another worker continues


def _fits_in_memory(state: RunningBatch, running: Collection[RunningBatch]) -> bool:
    """Whether the input of a batch may be held beside those that are held already; one of each user always may."""
    others = [one for one in running if one is not state and one.input_bytes]
    own = sum(one.input_bytes for one in others if one.batch.user_id == state.batch.user_id)
    return not own or own + state.input_bytes <= limits.BATCH_INPUT_BYTES


async def _answer_all(run: Runtime, state: RunningBatch, parsed: BatchInput) -> None:
    """Make every request of a batch that has no outcome yet."""
    known = await snapshot_cache.in_thread(batches.done_lines, state.batch)
    waiting = iter([line for line in parsed.lines if line.number not in known])

    async def worker() -> None:
        for line in waiting:
            if not state.active or run.stopping or state.no_room:
                return
            if await user_room.left(state.batch.user_id) <= 0:
                state.no_room = True
                return
            await _answer(run, state, line)

    await asyncio.gather(*(worker() for _ in range(run.config.batch_concurrency)))


async def _answer(run: Runtime, state: RunningBatch, line: BatchInputLine) -> None:
    """Make one request, and retry it while its failures are transient."""
    pause = 1.0
    for attempt in range(_MAX_TRIES):
        async with state.slot() as granted:
            outcome = await _try(run, state, line) if granted and not run.stopping else None
        if outcome is None:
            return
        background, status, body, error = outcome
        transient = (
            status in _TRANSIENT_STATUSES and (error is None or error.retry is not False) and attempt < _MAX_TRIES - 1
        )
        if isinstance(error, Stopping) or (transient and not state.active):
            return  # no outcome: the worker that continues the batch repeats the request
        if not transient:
            await snapshot_cache.in_thread(
                batches.write_failure, state.batch, line.number, answer_line(line, background.request_id, status, body)
            )
            return
        wait = error.retry_after if error is not None and error.retry_after is not None else pause
        await state.pause(min(max(wait, 0.05), _LONGEST_PAUSE))
        pause *= 2


async def _try(
    run: Runtime, state: RunningBatch, line: BatchInputLine
) -> tuple[BackgroundRequest, int, bytes, RelayError | None] | None:
    """Make one request once; returns None when it was answered, and its line is on disk then."""
    caller = await _caller(state.batch)
    if caller is None:
        body = (
            b'{"error":{"message":"The token of this batch was revoked or disabled, or its account was.",'
            b'"type":"authentication_error","param":null,"code":"token_disabled"}}'
        )
        return BackgroundRequest(_NO_CALLER, b""), 401, body, None
    background = BackgroundRequest(caller, line.body)
    if unfit := refusal(line.body):
        return background, 422, unfit, None
    background.price_factor = int(Decimal(run.config.batch_price) * ONE)
    background.total_at = time.monotonic() + run.config.total_timeout
    background.rows_for = partial(_line_written, state.batch, line, background.request_id)
    status, body, error = await run_in_background(
        run,
        background,
        _handler_of(run, caller, ENDPOINTS[state.batch.endpoint]),
        f"line {line.number} of {state.batch.batch_id}",
    )
    return None if status == 200 and error is None else (background, status, body, error)


def _line_written(batch: Batch, line: BatchInputLine, request_id: str, status: int, body: bytes) -> list[RowWrite]:
    """The row with the outcome of a line, for the commit that charges it."""
    user_room.stored(batch.user_id, len(body))
    return [
        insert(
            BatchLine, batch_id=batch.pk, number=line.number, ok=True, body=answer_line(line, request_id, status, body)
        )
    ]


def _handler_of(run: Runtime, caller: Caller, endpoint: str) -> Callable[[Exchange], asyncio.Future[HttpResponseBase]]:
    if endpoint == "chat.completions":
        return partial(chat_completions, caller=caller, run=run)  # type: ignore[return-value]  # a coroutine function
    if endpoint == "responses":
        return partial(create_response, caller=caller, run=run)  # type: ignore[return-value]
    return partial(pass_through, caller=caller, run=run, endpoint=endpoint)  # type: ignore[return-value]


_NO_CALLER: Final = Caller("", 0, 0, False, frozenset(), False, False, 0.0, None, ())


async def _caller(batch: Batch) -> Caller | None:
    """The caller that a batch is charged to; None when the token or its user is no longer active."""
    digest = await snapshot_cache.in_thread(batches.batch_token_digest, batch)
    caller = (snapshot_cache.cached(digest) or await snapshot_cache.caller(digest)) if digest else None
    return caller if caller is not None and caller.state(time.time()) is CallerState.ACTIVE else None
