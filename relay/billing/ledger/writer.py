"""Writes usage records and the charges that belong to them, in group commits.

One thread per process takes everything that is queued and commits it in one transaction. A request waits for its commit
before the last bytes of its answer are sent, so a client that has a whole answer has been charged for it and has a
record on disk, whatever happens to the process afterwards.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from django.db import InterfaceError, OperationalError, connection

from portal import limits
from portal.services.databases import is_lock_conflict
from portal.services.timeouts import refusals, statement_timeout
from relay.billing.ledger.batches.locked import LockedWork
from relay.billing.ledger.commits import Commits
from relay.billing.ledger.lines import Reserved, ReserveOrder, SpendScope
from relay.billing.ledger.pending import (
    PendingProlongation,
    PendingRecord,
    PendingRelease,
    PendingReservation,
    PendingWork,
    RecordCounter,
    Settlement,
    UsageRow,
    Withdrawn,
)
from relay.billing.ledger.rows import RowWrite
from relay.errors import RelayUnavailable

logger: Final = logging.getLogger(__name__)

_BATCH: Final = 500
_BATCH_DELAY: Final = 0.001  # seconds; under load larger batches save several times as much
# Seconds that a batch is added to while more arrives, until it has so large a share of the requests that are running:
# the rest of them keep this process busy meanwhile.
_MOST_DELAY: Final = 0.025
_STEP: Final = 0.002
_SHARE: Final = 4
_SLOW_SECONDS: Final = 5.0  # of a commit after which new requests are refused: they could not be recorded either
_TRY_SECONDS: Final = 1.0  # between tries of a database that could not be written
_BACKLOG: Final = 20_000  # records that may wait for a database that is down; beyond it new requests are refused
# How a record is written that the database refuses, one after another: see `UsageWriter._rescue`.
_WAYS: Final = ("apart", "careful", "write-off", "careful without rows", "write-off without rows")
_RESCUES: Final = 20  # times that this is tried again after the database was away, or rows were locked
_WAYS_WITHOUT_CHARGE: Final = ("apart", "without rows")
_STOP_SECONDS: Final = 10.0  # that a stop waits for the database
_UNAVAILABLE: Final = "The portal could not record this request. Try again in a few seconds."
_NO_BALANCE: Final = "The portal could not look at your balance. Try again in a few seconds."


class UsageWriter:
    """The writer thread of this process and its queue.

    `submit`, `reserve`, `release` and `prolong` are called from the event loop; the database is used in the thread
    only.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[PendingWork | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._pending = 0  # pieces of work that are queued or being written
        self._since = 0.0  # `time.monotonic()` when the commit that is being made began, 0: none
        self._failing_since = 0.0  # `time.monotonic()` since which the database cannot be written, 0: it can
        self.faults = 0  # incremented when reservations in the database may differ from what was requested
        self._commits = Commits()
        self._locked = LockedWork(self._commits, self._write, self._finish)
        self._stopping = False
        self.in_flight: Callable[[], int] = lambda: 0  # how many requests are running
        self.counter: RecordCounter | None = None  # of the records that have been committed
        self._awaited: dict[str, PendingRecord] = {}  # by request id; used on the event loop only

    def admit(self) -> None:
        """Check that a new request could be recorded. Raises RelayUnavailable."""
        since, failing = self._since, self._failing_since
        if (since and time.monotonic() - since > _SLOW_SECONDS) or (
            failing and (self._pending > _BACKLOG or time.monotonic() - failing > 1.0)
        ):
            refusals.add()
            raise RelayUnavailable(
                "The portal cannot write to its database. Try again in a few seconds.", retry_after=5
            )

    def admit_user(self, user_id: int) -> None:
        """Check that what a new request of a user costs could be booked. Raises RelayUnavailable."""
        if self._locked.refuses(user_id):
            refusals.add()
            raise RelayUnavailable(_NO_BALANCE, retry_after=5)

    @property
    def waiting(self) -> int:
        """How many records, reservations and so on are queued or being written."""
        return self._pending

    @property
    def stalled(self) -> float:
        """Seconds for which the commit that is being made takes, or the database cannot be written; 0: neither."""
        since = [at for at in (self._since, self._failing_since) if at]
        return time.monotonic() - min(since) if since else 0.0

    def submit(
        self, row: UsageRow, settlement: Settlement | None = None, wait: bool = True, rows: Sequence[RowWrite] = ()
    ) -> asyncio.Future[None] | None:
        """Queue a usage record with its charge and the rows that are written together with it.

        `row` has its values in the order of COLUMNS, with `started_at` in seconds since 1970. All is written whether or
        not the returned future is awaited; it is done when everything is on disk, and raises RelayUnavailable. None
        when not `wait`.
        """
        loop = asyncio.get_running_loop()
        future = loop.create_future() if wait else None
        record = PendingRecord(row, settlement, future, loop, rows)
        if future is not None:
            self._awaited[record.row[0]] = record
            future.add_done_callback(_look_at)
        self._put(record)
        return future

    def withdraw(self, row: UsageRow) -> bool:
        """Have `row` written in the place of the record of this request, without its charge and its other rows.

        For an answer that is not given since its record takes too long. Returns False while the record is being
        committed, or when it has been: then it is charged.
        """
        record = self._awaited.get(row[0])
        return record is not None and self._commits.withdraw(record, row)

    def reserve(
        self, order: ReserveOrder, on_reserved: Callable[[Reserved | None, bool], None]
    ) -> asyncio.Future[Reserved]:
        """Queue a reservation.

        `on_reserved(result, wanted)` is called on the event loop right before the future is done.

        `result` is None when it is not known what was reserved. `wanted` is false when the future has been cancelled
        meanwhile.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reserved] = loop.create_future()
        self._put(PendingReservation(order, future, loop, on_reserved))
        return future

    def release(self, reservation: str, scope: SpendScope, amount: int | None = None) -> None:
        """Queue the release of `amount` nano-USD of a reservation, or of all that is left of it."""
        self._put(PendingRelease(reservation, scope, amount))

    def prolong(self, owner: str) -> None:
        """Queue the extension of a worker's reservations."""
        self._put(PendingProlongation(owner))

    def probe(self) -> None:
        """Try to write, since the database does not answer others: if it fails, new requests are refused at once.

        May be called in any thread.
        """
        self.prolong("")

    def _put(self, work: PendingWork) -> None:
        if self._thread is None:
            self.start()
        self._pending += 1
        self._queue.put(work)

    def start(self) -> None:
        """Start the thread, unless it runs."""
        with self._starting:
            if self._thread is None:
                self._stopping = False
                self._thread = threading.Thread(target=self._run, name="airelays-usage", daemon=True)
                self._thread.start()
                atexit.register(self.close)  # a server without lifespan (Daphne) does not call it

    def close(self, timeout: float = 15.0) -> None:
        """Write what is queued, then end the thread. Gives up after `timeout` seconds."""
        thread = self._thread
        if thread is None:
            return
        self._stopping = True
        self._queue.put(None)
        thread.join(timeout)
        if thread.is_alive():
            logger.error(
                "%d usage records could not be written before the stop: the database does not answer", self._pending
            )
        self._thread = None

    # -- in the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with statement_timeout(limits.DATABASE_SECONDS):
            self._work()

    def _work(self) -> None:
        ending = False
        busy = False
        while not ending:
            batch: list[PendingWork] = []
            self._locked.retry()
            first = self._next()
            if busy and not self._stopping:
                self._gather()
            while True:
                if first is None:
                    ending = True
                    break
                batch.append(first)
                if len(batch) >= _BATCH:
                    break
                try:
                    first = self._queue.get_nowait()
                except queue.Empty:
                    break
            busy = len(batch) > 1
            for part in self._commits.parts(self._locked.without_locked(batch)):
                self._write(self._locked.hold(part))
        self._locked.end(_STOP_SECONDS)
        connection.close()

    def _gather(self) -> None:
        """Wait for more work, which shares one disk sync and the statements with what is there."""
        time.sleep(_BATCH_DELAY)
        wanted, before, last = min(self.in_flight() // _SHARE, _BATCH) + self._locked.pending, 0, 1
        until = time.monotonic() + _MOST_DELAY
        while before < (now := self._pending) < wanted and time.monotonic() < until:  # some in the last two steps
            before, last = last, now
            time.sleep(_STEP)

    def _next(self) -> PendingWork | None:
        """The next piece of work. While the database cannot be written, it is tried every now and then without any.

        New requests are refused until it can be, so that no work may ever come. Meanwhile the work of users whose rows
        are locked is tried.
        """
        while self._failing_since or self._locked:
            failing = bool(self._failing_since)
            try:
                return self._queue.get(timeout=_TRY_SECONDS if failing else self._locked.seconds)
            except queue.Empty:
                if failing:
                    self._pending += 1
                    self._write([PendingProlongation("")])
            self._locked.retry()
        return self._queue.get()

    def _write(self, batch: Sequence[PendingWork]) -> None:
        pause = 0.05
        while batch:
            try:
                self._since = time.monotonic()
                try:
                    self._commit(batch, any(isinstance(work, PendingRecord) and work.unsure for work in batch))
                finally:
                    self._since = 0.0
            except Withdrawn:
                continue
            except (OperationalError, InterfaceError) as error:
                if is_lock_conflict(error):
                    if not self._locked.separate(batch) and not self._failing_since:
                        self._failing_since = time.monotonic()
                        logger.error("usage records wait: rows of the database are locked: %s", error)
                    return
                if not self._failing_since:
                    self._failing_since = time.monotonic()
                    logger.error("usage records wait: the database cannot be written: %s", error)
                connection.close()
                if self._stopping and time.monotonic() - self._failing_since > _STOP_SECONDS:
                    self._finish(batch, error)
                    return
                batch = self._after_loss(batch, error)
                time.sleep(pause)
                pause = min(pause * 2, 1.0)
                continue
            except Exception as error:  # one bad row must not fail the whole batch
                if len(batch) > 1:
                    for work in batch:
                        self._write([work])
                else:
                    self._rescue(batch[0], error)
                return
            if self._failing_since:
                logger.warning("the database can be written again after %.1f s", time.monotonic() - self._failing_since)
                self._failing_since = 0.0
            self._finish(batch, None)
            return

    def _after_loss(self, batch: Sequence[PendingWork], error: BaseException) -> list[PendingWork]:
        """What is written again after the connection was lost.

        It is not known whether a broken transaction was committed. Records are looked up before they are written again;
        reservations are refused, and releases are left to the expiry of their reservations.
        """
        self.faults += 1
        records: list[PendingWork] = []
        for work in batch:
            if isinstance(work, PendingRecord):
                work.unsure = True
                records.append(work)
        self._finish([work for work in batch if not isinstance(work, PendingRecord)], error)
        return records

    def _rescue(self, work: PendingWork, error: Exception) -> None:
        """Handle a single piece of work that the database refuses.

        A record is written all the same, with as much of what belongs to it as can be: each row apart from the
        others, and charged with only what is free, or else as a shortfall.
        """
        if isinstance(work, PendingRecord) and (work.settlement is not None or work.rows):
            for way in _WAYS if work.settlement is not None else _WAYS_WITHOUT_CHARGE:
                try:
                    self._commit([work], work.unsure, way)
                except Withdrawn:
                    self._write([work])
                    return
                except (OperationalError, InterfaceError) as gone:  # says nothing about the row
                    if not is_lock_conflict(gone):
                        connection.close()
                    work.unsure = True
                    work.rescues += 1
                    if work.rescues <= _RESCUES:
                        self._locked.put(work)
                        return
                    logger.exception("a charge cannot be written (%s)", way)
                    continue
                except Exception:
                    logger.exception("a charge cannot be written (%s)", way)
                    continue
                logger.warning("request %s was recorded the %s way: %s", work.row[0], way, error)
                self._finish([work], None)
                return
        logger.error("the ledger cannot write %s", type(work).__name__, exc_info=error)
        self._finish([work], error)

    def _commit(self, batch: Sequence[PendingWork], again: bool, way: str = "") -> None:
        """Write a batch in one transaction, as `Commits.write`."""
        counter = self.counter
        if counter is None:
            self._commits.write(batch, again, way)
            return
        records = [work for work in batch if isinstance(work, PendingRecord)]
        if records:
            counter.begin(records)
        self._commits.write(batch, again, way)
        if records:
            counter.written(records)

    def _finish(self, batch: Sequence[PendingWork], error: BaseException | None) -> None:
        self._pending -= len(batch)
        loops: dict[asyncio.AbstractEventLoop, list[PendingRecord | PendingReservation]] = {}
        for work in batch:
            if isinstance(work, (PendingRecord, PendingReservation)):
                loops.setdefault(work.loop, []).append(work)
        for loop, works in loops.items():
            try:
                loop.call_soon_threadsafe(self._resolve, works, error)
            except RuntimeError:  # the loop is closed: nothing waits any more
                continue

    def _resolve(self, works: Sequence[PendingRecord | PendingReservation], error: BaseException | None) -> None:
        """Complete the futures of a batch, on the event loop."""
        for work in works:
            if isinstance(work, PendingRecord):
                if work.future is not None:
                    self._awaited.pop(work.row[0], None)
                work.resolve(error, _UNAVAILABLE)
            else:
                work.resolve(error, _NO_BALANCE)


def _look_at(future: asyncio.Future[None]) -> None:
    """Nobody may wait for it any more, and what it raises is no news then."""
    if not future.cancelled():
        future.exception()


writer: Final = UsageWriter()
