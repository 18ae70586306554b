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
from contextlib import nullcontext
from typing import Final

from django.db import InterfaceError, OperationalError, connection
from django.db.models.constants import OnConflict

from portal import limits
from portal.services.timeouts import statement_timeout
from relay.billing.ledger import requests
from relay.billing.ledger.lines import Reserved, ReserveOrder, SpendScope
from relay.billing.ledger.pending import (
    COLUMNS,
    STARTED_AT,
    PendingProlongation,
    PendingRecord,
    PendingRelease,
    PendingReservation,
    PendingWork,
    Settlement,
    UsageRow,
    UserBatch,
    by_user,
    with_shortfall,
)
from relay.billing.ledger.rows import RowWrite
from relay.billing.ledger.sql import LedgerSql, begin, rollback, without_disk_sync
from relay.errors import RelayUnavailable
from relay.models import UsageRecord

logger: Final = logging.getLogger(__name__)

_BATCH: Final = 500
_BATCH_DELAY: Final = 0.001  # seconds; under load larger batches save several times as much
_SLOW_SECONDS: Final = 5.0  # of a commit after which new requests are refused: they could not be recorded either
_TRY_SECONDS: Final = 1.0  # between tries of a database that could not be written
_BACKLOG: Final = 20_000  # records that may wait for a database that is down; beyond it new requests are refused
# How a record is written that the database refuses, one after another: see `UsageWriter._rescue`.
_WAYS: Final = ("apart", "careful", "write-off", "careful without rows", "write-off without rows")
_WAYS_WITHOUT_CHARGE: Final = ("apart", "without rows")
_WITHOUT_ROWS: Final = frozenset(("careful without rows", "write-off without rows", "without rows"))
_UNAVAILABLE: Final = "The portal could not record this request. Try again in a few seconds."


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
        self._sql = ""
        self._db: LedgerSql | None = None
        self._stopping = False

    def admit(self) -> None:
        """Check that a new request could be recorded. Raises RelayUnavailable."""
        since, failing = self._since, self._failing_since
        if (since and time.monotonic() - since > _SLOW_SECONDS) or (
            failing and (self._pending > _BACKLOG or time.monotonic() - failing > 1.0)
        ):
            raise RelayUnavailable(
                "The portal cannot write to its database. Try again in a few seconds.", retry_after=5
            )

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
        self._put(PendingRecord(row, settlement, future, loop, rows))
        return future

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
            first = self._next()
            if busy and not self._stopping:
                time.sleep(_BATCH_DELAY)  # under load more work arrives meanwhile and shares one disk sync
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
            if batch:
                self._write(batch)
        connection.close()

    def _next(self) -> PendingWork | None:
        """The next piece of work. While the database cannot be written, it is tried every now and then without any.

        New requests are refused until it can be, so that no work may ever come.
        """
        while self._failing_since:
            try:
                return self._queue.get(timeout=_TRY_SECONDS)
            except queue.Empty:
                self._pending += 1
                self._write([PendingProlongation("")])
        return self._queue.get()

    def _write(self, batch: list[PendingWork]) -> None:
        pause = 0.05
        again = False
        while batch:
            try:
                self._since = time.monotonic()
                try:
                    self._commit(batch, again)
                finally:
                    self._since = 0.0
            except (OperationalError, InterfaceError) as error:
                if not self._failing_since:
                    self._failing_since = time.monotonic()
                    logger.error("usage records wait: the database cannot be written: %s", error)
                connection.close()
                if self._stopping and time.monotonic() - self._failing_since > 10:
                    self._finish(batch, error)
                    return
                # It is not known whether a broken transaction was committed. Records are looked up before they are
                # written again; reservations are refused, and releases are left to the expiry of their reservations.
                self.faults += 1
                others = [work for work in batch if not isinstance(work, PendingRecord)]
                self._finish(others, error)
                batch = [work for work in batch if isinstance(work, PendingRecord)]
                again = True
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

    def _rescue(self, work: PendingWork, error: Exception) -> None:
        """Handle a single piece of work that the database refuses.

        A record is written all the same, with as much of what belongs to it as can be: each row apart from the
        others, and charged with only what is free, or else as a shortfall.
        """
        if isinstance(work, PendingRecord) and (work.settlement is not None or work.rows):
            for way in _WAYS if work.settlement is not None else _WAYS_WITHOUT_CHARGE:
                try:
                    self._commit([work], False, way)
                except Exception:
                    logger.exception("a charge cannot be written (%s)", way)
                    continue
                logger.warning("request %s was recorded the %s way: %s", work.row[0], way, error)
                self._finish([work], None)
                return
        logger.error("the ledger cannot write %s", type(work).__name__, exc_info=error)
        self._finish([work], error)

    def _commit(self, batch: Sequence[PendingWork], again: bool, way: str = "") -> None:
        """Write a batch in one transaction. Raises what the database raises; nothing is written then.

        `again`: the batch may have been written before. `way`: see `_rescue`.
        """
        connection.ensure_connection()
        if self._db is None:
            self._db, self._sql = LedgerSql(), _insert_statement()
        db = self._db
        records = [work for work in batch if isinstance(work, PendingRecord)]
        if again and records:
            written = self._already_written(records)
            records = [record for record in records if record.row[0] not in written]
        if len(records) == len(batch) == 1 and records[0].settlement is None and not records[0].rows:
            # A single statement is a transaction of its own, and saves a third of the time.
            self._insert(db, [self._values(db, records[0].row)])
            return
        with without_disk_sync(db) if not records else nullcontext():
            self._transaction(db, batch, records, way)

    def _transaction(
        self, db: LedgerSql, batch: Sequence[PendingWork], records: Sequence[PendingRecord], way: str
    ) -> None:
        begin(db)
        try:
            users = by_user(batch, records)
            now = time.time()
            for user_id in sorted(users):
                self._settle_user(db, user_id, users[user_id], now, way)
            for work in batch:
                if isinstance(work, PendingProlongation):
                    requests.prolong(db, work.owner, now)
            if records:
                self._insert(db, [self._values(db, with_shortfall(record)) for record in records])
                for row_write in () if way in _WITHOUT_ROWS else [one for record in records for one in record.rows]:
                    if way:
                        row_write.run_apart(db)
                    else:
                        row_write.run(db)
            db.run("COMMIT")
        except BaseException:
            rollback(db)
            raise

    def _settle_user(self, db: LedgerSql, user_id: int, work: UserBatch, now: float, way: str) -> None:
        db.lock(user_id)
        for (reservation, scope), records in work.settlements.items():
            charges = [record.settlement.charge for record in records if record.settlement is not None]
            written_off = way.startswith("write-off")
            charged = (
                [requests.write_off(db, scope, charge) for charge in charges]
                if written_off
                else requests.settle(db, reservation, scope, charges, careful=way.startswith("careful"))
            )
            for record, outcome in zip(records, charged, strict=True):
                record.charged = outcome
        for release in work.releases:
            requests.release(db, release.reservation, release.scope, release.amount, now)
        for reserve in work.reserves:
            order = reserve.order
            reserve.result = requests.reserve(db, order, now)

    def _already_written(self, records: Sequence[PendingRecord]) -> set[str]:
        ids = [record.row[0] for record in records]
        return set(UsageRecord.objects.filter(request_id__in=ids).values_list("request_id", flat=True))

    def _values(self, db: LedgerSql, row: UsageRow) -> UsageRow:
        return (*row[:STARTED_AT], db.at(row[STARTED_AT]), *row[STARTED_AT + 1 :])

    def _insert(self, db: LedgerSql, rows: Sequence[UsageRow]) -> None:
        if db.sqlite:
            with connection.wrap_database_errors:
                connection.connection.executemany(self._sql, rows)
            return
        with connection.cursor() as cursor:
            cursor.executemany(self._sql, rows)

    def _finish(self, batch: Sequence[PendingWork], error: BaseException | None) -> None:
        self._pending -= len(batch)
        loops: dict[asyncio.AbstractEventLoop, list[PendingRecord | PendingReservation]] = {}
        for work in batch:
            if isinstance(work, (PendingRecord, PendingReservation)):
                loops.setdefault(work.loop, []).append(work)
        for loop, works in loops.items():
            try:
                loop.call_soon_threadsafe(_resolve, works, error)
            except RuntimeError:  # the loop is closed: nothing waits any more
                continue


def _resolve(works: Sequence[PendingRecord | PendingReservation], error: BaseException | None) -> None:
    """Complete the futures of a batch, on the event loop."""
    for work in works:
        if isinstance(work, PendingRecord):
            if work.settlement is not None:
                work.settlement.on_settled(work.charged if error is None else None)
            if work.future is not None and not work.future.done():
                if error is None:
                    work.future.set_result(None)
                else:
                    work.future.set_exception(RelayUnavailable(_UNAVAILABLE, retry_after=5))
            continue
        result = work.result if error is None else None
        wanted = not work.future.done()
        work.on_reserved(result, wanted)
        if wanted and result is not None:
            work.future.set_result(result)
        elif wanted:
            work.future.set_exception(
                RelayUnavailable(
                    "The portal could not look at your balance. Try again in a few seconds.", retry_after=5
                )
            )


def _insert_statement() -> str:
    """Return an INSERT that ignores a row that exists, so that a commit of unknown outcome can be repeated."""
    ops, quote = connection.ops, connection.ops.quote_name
    fields = [field for field in UsageRecord._meta.concrete_fields if field.attname in COLUMNS]
    by_name = {field.attname: field for field in fields}
    columns = [quote(by_name[name].column or name) for name in COLUMNS]
    insert = ops.insert_statement(on_conflict=OnConflict.IGNORE)
    suffix = ops.on_conflict_suffix_sql(fields, OnConflict.IGNORE, ["request_id"], ["request_id"])
    sql = (
        f"{insert} {quote(UsageRecord._meta.db_table)} ({', '.join(columns)}) VALUES "
        f"({', '.join(['%s'] * len(columns))}) {suffix}"
    ).strip()
    return sql.replace("%s", "?") if connection.vendor == "sqlite" else sql


writer: Final = UsageWriter()
