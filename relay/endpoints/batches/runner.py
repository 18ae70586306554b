"""Runs batches in the background, through the same pipeline as the requests of clients.

One worker runs a batch at a time; if it stops, another one continues. What waits (for a limit, for money, for an
upstream, for room) keeps nobody else waiting: a line that waits holds no slot, and a batch without room is put back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Final

from portal import limits
from portal.lib import clock
from portal.lib.json import Json
from relay.endpoints.batches.faults import BatchFaults, entry_of
from relay.endpoints.batches.lines import FailedLines, LineQueue
from relay.endpoints.batches.requests import Outcome, is_written, make_request
from relay.endpoints.batches.running import NO_INPUT, STUCK, LineRequest, RunningBatch
from relay.endpoints.batches.slots import BatchSlots
from relay.endpoints.batches.turns import next_user, to_make_room
from relay.endpoints.batches.waits import wait_after
from relay.errors import RelayUnavailable, RequestEnded, Stopping
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.models import Batch
from relay.models.batch import BatchWait
from relay.storage import batch_claims, batch_results, batches
from relay.storage.batch_input import BatchInput, BatchInputLine, answer_line, error

logger: Final = logging.getLogger(__name__)
_POLL_SECONDS: Final = 2.0  # between searches for batches that no worker runs
_LOOK_SECONDS: Final = (
    0.4  # between looks at what has become of the batches that run: cancelled ones end within a second
)
_RENEW_SECONDS: Final = 2.0  # between renewals of the leases
_DATABASE_PAUSE: Final = 5.0  # between tries to write that lines failed
_DATABASE_TRIES: Final = 12
_ROOM_PAUSE: Final = 30.0  # seconds after which a batch is tried again that has no room
_MOST_FAILED: Final = 1_000  # batches whose failed lines are remembered between their turns
_failed_lines: dict[int, FailedLines] = {}  # by the key of the batch
_faults: Final = BatchFaults()
_wake: asyncio.Event | None = None
_look: asyncio.Event | None = None


def wake() -> None:
    """Look at the batches now: one was created or cancelled."""
    if _wake is not None and _look is not None:
        _wake.set()
        _look.set()


async def run_batches(run: Runtime) -> None:
    """Run batches until cancelled: the background task of every worker.

    At a stop, lines that are being made are finished before that, and the batches put back for other workers.
    """
    global _wake, _look
    _wake, _look = asyncio.Event(), asyncio.Event()
    slots = BatchSlots(run.config.batch_concurrency)
    running: dict[RunningBatch, asyncio.Task[None]] = {}
    beside = (asyncio.ensure_future(_renew_leases(running)), asyncio.ensure_future(_write_unwritten(run)))
    tell_stop = partial(_tell_stop, running)
    run.at_stop.add(tell_stop)
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
        run.at_stop.discard(tell_stop)
        for task in (*beside, *running.values()):
            task.cancel()


def _tell_stop(running: Iterable[RunningBatch]) -> None:
    """No line is begun any more: wake those who wait to begin one."""
    for one in running:
        one.changed.set()
    wake()


async def _start_batches(run: Runtime, running: dict[RunningBatch, asyncio.Task[None]], slots: BatchSlots) -> None:
    """Claim the batches that fit, and begin to run them."""
    owner = run.reservations.owner
    users = await snapshot_cache.in_thread(batch_claims.waiting_users, [one.batch.pk for one in running])
    while (user_id := next_user(users, running)) is not None:
        batch = await _claim(owner, user_id, [one.batch.pk for one in running])
        if batch is None:
            users.remove(user_id)
            continue
        state = RunningBatch(batch, owner, slots)
        task = running[state] = asyncio.ensure_future(_run_batch(run, state, running.keys()))
        task.add_done_callback(partial(_on_batch_done, running, state))
        run.watchdog.keep(task)
    if users and running:
        users = await snapshot_cache.in_thread(batch_claims.waiting_users, [one.batch.pk for one in running])
        users = [user_id for user_id in users if next_user([user_id], running.keys()) is None]  # others just came
        for one in to_make_room(users, running.keys(), time.monotonic()):
            one.make_room()


async def _claim(owner: str, user_id: int, running: list[int]) -> Batch | None:
    """Claim a batch of a user. Raises RelayUnavailable."""
    claiming = batch_claims.Claiming(owner)
    try:
        return await snapshot_cache.in_thread(claiming.claim, user_id, running)
    except BaseException as error:
        batch = claiming.give_up()
        if batch is not None and isinstance(error, RelayUnavailable):
            return batch
        raise


def _on_batch_done(
    running: dict[RunningBatch, asyncio.Task[None]], state: RunningBatch, task: asyncio.Task[None]
) -> None:
    running.pop(state, None)
    wake()
    if not task.cancelled() and task.exception() is not None:
        logger.error(
            "%s failed here; it is tried again when its lease has run out",
            state.batch.batch_id,
            exc_info=task.exception(),
        )


async def _renew_leases(running: Collection[RunningBatch]) -> None:
    """Renew the leases, read which batches have been cancelled, and write how far they are."""
    renew_at = 0.0
    while True:
        if _look is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(_look.wait(), _LOOK_SECONDS)
            _look.clear()
        renews = time.monotonic() >= renew_at
        if renews:
            renew_at = time.monotonic() + _RENEW_SECONDS
        try:
            for owner in {one.owner for one in running}:
                own = [one for one in running if one.owner == owner]
                status = await snapshot_cache.in_thread(
                    batch_claims.renew, owner, [one.batch.pk for one in own], renews
                )
                for one in own:
                    one.seen(status.get(one.batch.pk))
            standings = [(one.batch, one.owner, found) for one in running if (found := one.standing()) is not None]
            if standings:
                await snapshot_cache.in_thread(batch_claims.write_standings, standings)
        except RelayUnavailable:
            pass  # logged; the lease lasts longer than a short failure
        except Exception:
            logger.exception("the leases of batches could not be renewed; the next round tries again")


async def _write_unwritten(run: Runtime) -> None:
    """Write the files of batches that ended when there was no room for them."""
    while True:
        await asyncio.sleep(_ROOM_PAUSE)
        try:
            while not run.stopping and await snapshot_cache.in_slow_thread(
                batch_results.write_unwritten, run.reservations.owner
            ):
                pass
        except RelayUnavailable:
            pass  # logged
        except Exception:
            logger.exception("the results of a batch that has ended cannot be written; they are tried again later")


async def _run_batch(run: Runtime, state: RunningBatch, running: Collection[RunningBatch]) -> None:
    """Run one batch from its current state to its end, or until it has to wait."""
    try:
        await _run_on(run, state, running)
    except Exception as fault:
        await _on_fault(state, fault)


async def _run_on(run: Runtime, state: RunningBatch, running: Collection[RunningBatch]) -> None:
    batch, owner = state.batch, state.owner
    # Whose results only wait for room may have lost its input file meanwhile.
    if batch.finalizing_at is None or not await snapshot_cache.in_thread(batches.all_answered, batch):
        state.input = await _read_input(state)
    parsed = state.input
    state.input_bytes = sum(len(line.body) for line in parsed.lines)
    if not _fits_in_memory(state, running):
        await _put_back(state, _ROOM_PAUSE, BatchWait.TURN)
        return
    if batch.status == Batch.Status.VALIDATING:
        await snapshot_cache.in_thread(batches.start_batch, batch, parsed)
        state.status = str(batch.status)
    if batch.status in Batch.ENDED:
        return
    if state.status == Batch.Status.IN_PROGRESS and not parsed.errors:
        await _answer_all(run, state, parsed)
    ends = bool(state.lines.answered or state.must_end or state.no_room or parsed.errors)
    if run.stopping or state.lost or not ends:  # lines that have not been made are no failures
        await _put_back(state, 0.0, BatchWait.TURN if state.makes_room else "")
        return
    outcome = Batch.Status.FAILED if parsed.errors and not state.must_end else state.outcome
    errors = parsed.errors or _given_up(state)
    waits: BatchWait | None = BatchWait.ROOM
    if not (state.no_room and state.active):
        waits = await snapshot_cache.in_slow_thread(batch_results.finish, batch, parsed.lines, outcome, owner, errors)
    if waits is not None:
        await _put_back(state, _ROOM_PAUSE, waits)
        return
    _failed_lines.pop(batch.pk, None)
    _faults.forget(batch.pk)


async def _read_input(state: RunningBatch) -> BatchInput:
    """The input of a batch; nothing of one that has to end, and whose input cannot be read."""
    try:
        return await snapshot_cache.in_slow_thread(batches.read_input, state.batch)
    except RelayUnavailable:
        raise
    except Exception:
        if not state.must_end:
            raise
        logger.exception("the input of %s cannot be read; it ends without", state.batch.batch_id)
        return NO_INPUT


async def _put_back(state: RunningBatch, seconds: float, waits_for: str) -> None:
    """Let any worker run a batch again. One that waits for somebody goes on with that wait."""
    if waits_for == BatchWait.TURN and (state.waits or state.batch.waits_for in STUCK):
        waits_for = ""
    await snapshot_cache.in_thread(batch_claims.put_back, state.batch, state.owner, seconds, waits_for)


async def _on_fault(state: RunningBatch, fault: Exception) -> None:
    """Try a batch again that has failed here, or end it."""
    batch = state.batch
    if not isinstance(fault, RelayUnavailable):  # which is logged
        logger.error("%s failed here", batch.batch_id, exc_info=fault)
    if state.lost:
        return
    seconds, waits = _faults.add(batch.pk, fault, state.must_end, time.monotonic()), BatchWait.PORTAL
    try:
        if seconds is None:
            waits_for = await _end_with(state, entry_of(fault))
            if waits_for is None:
                _failed_lines.pop(batch.pk, None)
                _faults.forget(batch.pk)
                return
            seconds, waits = _ROOM_PAUSE, waits_for
        await _put_back(state, seconds, waits)
    except RelayUnavailable:
        pass  # logged; the lease runs out, and another worker continues


async def _end_with(state: RunningBatch, reason: Json) -> BatchWait | None:
    """End a batch with a reason. Returns what it waits for when there is no room yet for the results that it has."""
    outcome = state.outcome if state.must_end else Batch.Status.FAILED
    lines = state.input.lines if state.batch.in_progress_at is not None else ()
    logger.error("%s ends as %s: %s", state.batch.batch_id, outcome, reason["message"])
    try:
        return await snapshot_cache.in_slow_thread(
            batch_results.finish, state.batch, lines, outcome, state.owner, [reason]
        )
    except Exception:
        logger.exception("the results of %s cannot be written; it ends without", state.batch.batch_id)
    await snapshot_cache.in_thread(batch_results.give_up, state.batch, outcome, state.owner, [reason])
    return None


def _fits_in_memory(state: RunningBatch, running: Collection[RunningBatch]) -> bool:
    """Whether the input of a batch may be held beside those that are held already."""
    others = [one for one in running if one is not state and one.input_bytes]
    if not others or state.must_end:
        return True
    own = sum(one.input_bytes for one in others if one.user_id == state.user_id)
    if sum(one.input_bytes for one in others) + state.input_bytes > limits.BATCH_INPUTS_BYTES:
        return False
    return not own or own + state.input_bytes <= limits.BATCH_INPUT_BYTES


def _given_up(state: RunningBatch) -> Sequence[Json]:
    """The errors of a batch some of whose lines were given up: they waited for what nobody did."""
    complaint = state.complaint
    return (error(complaint.public_code or "server_error", complaint.message),) if complaint is not None else ()


async def _answer_all(run: Runtime, state: RunningBatch, parsed: BatchInput) -> None:
    """Make every request of a batch that has no outcome yet."""
    batch = state.batch
    known = await snapshot_cache.in_thread(batches.done_lines, batch)
    state.ok = sum(known.values())
    state.failed = len(known) - state.ok
    state.counted = True
    waits = batch.waits_for in STUCK
    waited = (clock.now() - batch.waits_since).total_seconds() if waits and batch.waits_since is not None else 0.0
    left = (line for line in parsed.lines if line.number not in known)
    if len(_failed_lines) > _MOST_FAILED and batch.pk not in _failed_lines:
        _failed_lines.pop(next(iter(_failed_lines)))
    failed = _failed_lines.setdefault(batch.pk, {})
    state.lines = LineQueue(left, time.monotonic(), max(0.0, waited), failed)

    async def work() -> None:
        try:
            await _answer_lines(run, state)
        except BaseException:
            state.end()  # the others finish what they are at
            raise

    ends = await asyncio.gather(*(work() for _ in range(run.config.batch_concurrency)), return_exceptions=True)
    for end in ends:
        if end is not None:
            raise end


async def _answer_lines(run: Runtime, state: RunningBatch) -> None:
    """Make one request after another, until there is none left or the batch ends."""
    lines = state.lines
    while not lines.over and state.active and not (run.stopping or state.no_room or state.ends):
        seconds = lines.ready_in(time.monotonic())
        if seconds is None or seconds > 0:
            await state.pause(seconds)
            continue
        async with state.slot() as granted:
            line = lines.take(time.monotonic()) if granted and not run.stopping else None
            outcome = await make_request(run, state, line) if line is not None else None
        if line is not None and outcome is not None:
            await _settle(run, state, line, outcome)
            state.changed.set()


async def _settle(run: Runtime, state: RunningBatch, line: BatchInputLine, outcome: Outcome) -> None:
    """Record what came of a line, or let it wait."""
    request, status, body, failure = outcome
    now = time.monotonic()
    if status == 200 and failure is None:
        state.ok += 1
        state.lines.finish(line, now)
        return
    if isinstance(failure, Stopping) or (isinstance(failure, RequestEnded) and state.ends):
        state.lines.leave(line)  # the worker that continues the batch repeats the request, if any does
        return
    reached, made = (request.reached, request.made) if request is not None else (False, False)
    wait = wait_after(status, failure, reached, time.time(), made)
    if wait is not None and wait.reason is BatchWait.PORTAL and reached:
        state.unsure.add(line.number)
    leaves = wait is not None and (state.ends or not state.active)
    if wait is not None and wait.reason is BatchWait.ROOM:
        state.no_room = leaves = True
    lost = [line]
    if wait is not None:
        lost = state.lines.leave(line, wait) if leaves else state.lines.put_back(line, wait, now)
        if wait.bounded and lost:
            state.complaint = failure
        if state.lost:
            return
    elif request is None:  # no line can be made any more
        state.lines.finish(line, now)
        lost += state.lines.drain()
    else:
        state.lines.finish(line, now)
    if lost:
        if request is not None and failure is not None:
            run.refusals.add(request, failure, f"line {line.number} of {state.batch.batch_id}")
        await _write_failures(state, lost, status, body, request)


async def _write_failures(
    state: RunningBatch, lost: Iterable[BatchInputLine], status: int, body: bytes, request: LineRequest | None
) -> None:
    """Record that lines failed, but for those whose answer has been written. Waits for the database."""
    name = request.request_id if request is not None else ""
    rows = [(line.number, answer_line(line, name or f"req_{line.number:08d}", status, body)) for line in lost]
    for left in reversed(range(_DATABASE_TRIES)):
        try:
            written = {number for number, _ in rows if await is_written(state, number)}
            state.ok += len(written)
            rows = [row for row in rows if row[0] not in written]
            await snapshot_cache.in_slow_thread(batches.write_failures, state.batch, rows)
        except RelayUnavailable:
            if not left:
                raise
            await asyncio.sleep(_DATABASE_PAUSE)
            if state.lost:
                return
        else:
            state.failed += len(rows)
            return
