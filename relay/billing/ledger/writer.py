"""Durable usage records and the movements of money that belong to them, committed in groups.

One thread per process takes everything that is waiting and commits it in one transaction. A request waits for its commit before its last
bytes go out; so whoever has a whole answer has a record on disk, and has paid for it, whatever happens to the process afterwards.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

from django.db import InterfaceError, OperationalError, connection
from django.db.models.constants import OnConflict

from relay.billing.ledger import requests
from relay.billing.ledger.lines import BudgetLine, Charge, Charged, Reserved, SpendScope
from relay.billing.ledger.rows import RowWrite
from relay.billing.ledger.sql import LedgerSql, begin, rollback, unhurried
from relay.errors import RelayUnavailable
from relay.models import UsageRecord

logger: Final = logging.getLogger(__name__)

COLUMNS: Final = (
    "request_id", "client_request_id", "started_at", "user_id", "token_id", "channel_id", "api_key_id", "model", "upstream_model",
    "endpoint", "streamed", "status", "end_reason", "error_code", "error_message", "input_tokens", "cached_input_tokens",
    "cache_write_tokens", "output_tokens", "reasoning_tokens", "audio_input_tokens", "audio_output_tokens", "image_input_tokens", "images",
    "milliseconds", "characters", "usage_source", "latency_ms", "first_token_ms", "attempts", "attempt_log", "client_ip", "price_id",
    "price_multiplier", "cost", "shortfall", "upstream_cost", "reserved", "payer", "billing",
)  # fmt: skip
_STARTED_AT: Final = COLUMNS.index("started_at")
_SHORTFALL: Final = COLUMNS.index("shortfall")
_BATCH: Final = 500
_LINGER: Final = 0.001  # seconds; under load it is regained several times over in work that is not done
_BACKLOG: Final = 20_000  # records that may wait for a database that is away; beyond it new requests are refused
_UNAVAILABLE: Final = "The portal could not record this request. Try again in a few seconds."
UsageRow = tuple[Any, ...]


@dataclass(slots=True)
class Settlement:
    """What a record's request is charged. `reservation`: the reservation it is charged to, empty when it needs none."""

    reservation: str
    scope: SpendScope
    charge: Charge
    on_settled: Callable[[Charged | None], None]  # called on the event loop; None: it could not be charged to the reservation


@dataclass(slots=True)
class _Record:
    """A usage record, and what it costs."""

    row: UsageRow
    settlement: Settlement | None
    future: asyncio.Future[None] | None
    loop: asyncio.AbstractEventLoop
    rows: Sequence[RowWrite] = ()
    charged: Charged | None = None


@dataclass(slots=True)
class ReserveOrder:
    """What `ledger.reserve` is asked."""

    reservation: str
    owner: str
    scope: SpendScope
    budgets: Sequence[BudgetLine]
    need: int
    headroom: int
    minimum: int


@dataclass(slots=True)
class _Reserve:
    order: ReserveOrder
    future: asyncio.Future[Reserved]
    loop: asyncio.AbstractEventLoop
    on_reserved: Callable[[Reserved | None, bool], None]
    result: Reserved | None = None


@dataclass(slots=True)
class _Release:
    """Give back `amount` of a reservation; None: all of it, which ends it."""

    reservation: str
    scope: SpendScope
    amount: int | None


@dataclass(slots=True)
class _Prolong:
    owner: str


_Work = _Record | _Reserve | _Release | _Prolong


@dataclass(slots=True)
class _OfUser:
    """The part of a batch that concerns one user."""

    settlements: dict[tuple[str, SpendScope], list[_Record]] = field(default_factory=dict)
    releases: list[_Release] = field(default_factory=list)
    reserves: list[_Reserve] = field(default_factory=list)


class UsageWriter:
    """`submit`, `reserve` and `release` from the event loop; everything else happens in the thread."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._pending = 0
        self._failing_since = 0.0
        self.faults = 0  # grows whenever reservations may differ from what was asked
        self._sql = ""
        self._db: LedgerSql | None = None
        self._stopping = False

    def admit(self) -> None:
        """Refuse work that could not be recorded. Raises RelayUnavailable."""
        if self._failing_since and (self._pending > _BACKLOG or time.monotonic() - self._failing_since > 1.0):
            raise RelayUnavailable("The portal cannot write to its database. Try again in a few seconds.", retry_after=5)

    def submit(self, row: UsageRow, settlement: Settlement | None = None, wait: bool = True, rows: Sequence[RowWrite] = ()) -> asyncio.Future[None] | None:
        """Queue a record (values in the order of COLUMNS, `started_at` in seconds since 1970), what it costs, and what is written with it.

        All are kept from here on, whether or not somebody awaits the future, which is done when they are on disk.
        """
        loop = asyncio.get_running_loop()
        future = loop.create_future() if wait else None
        self._put(_Record(row, settlement, future, loop, rows))
        return future

    def reserve(self, order: ReserveOrder, on_reserved: Callable[[Reserved | None, bool], None]) -> asyncio.Future[Reserved]:
        """Hold money back. `on_reserved(result, wanted)` is called on the event loop right before the future is done.

        No result: it is not known what was held. Not wanted: who asked has gone meanwhile.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reserved] = loop.create_future()
        self._put(_Reserve(order, future, loop, on_reserved))
        return future

    def release(self, reservation: str, scope: SpendScope, amount: int | None = None) -> None:
        """Give back a part of a reservation, or all that is left of it."""
        self._put(_Release(reservation, scope, amount))

    def prolong(self, owner: str) -> None:
        """Keep this worker's reservations alive."""
        self._put(_Prolong(owner))

    def _put(self, work: _Work) -> None:
        if self._thread is None:
            self.start()
        self._pending += 1
        self._queue.put(work)

    def start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._stopping = False
                self._thread = threading.Thread(target=self._run, name="airelays-usage", daemon=True)
                self._thread.start()
                atexit.register(self.close)  # a server without lifespan (Daphne) does not call it

    def close(self, timeout: float = 15.0) -> None:
        """Write what is queued, then end the thread."""
        thread = self._thread
        if thread is None:
            return
        self._stopping = True
        self._queue.put(None)
        thread.join(timeout)
        if thread.is_alive():
            logger.error("%d usage records could not be written before the stop: the database does not answer", self._pending)
        self._thread = None

    # -- in the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        ending = False
        busy = False
        while not ending:
            batch: list[_Work] = []
            first = self._queue.get()
            if busy and not self._stopping:
                time.sleep(_LINGER)  # where two came together more are on their way, and share one disk sync
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

    def _write(self, batch: list[_Work]) -> None:
        pause = 0.05
        again = False
        while batch:
            try:
                self._commit(batch, again)
            except (OperationalError, InterfaceError) as error:
                if not self._failing_since:
                    self._failing_since = time.monotonic()
                    logger.error("usage records wait: the database cannot be written: %s", error)
                connection.close()
                if self._stopping and time.monotonic() - self._failing_since > 10:
                    self._finish(batch, error)
                    return
                # Whether a broken transaction was committed is not known. Records are looked up before they are written again; what was
                # to be reserved is refused, and what was to be released waits for the end of its reservation.
                self.faults += 1
                others = [work for work in batch if not isinstance(work, _Record)]
                self._finish(others, error)
                batch = [work for work in batch if isinstance(work, _Record)]
                again = True
                time.sleep(pause)
                pause = min(pause * 2, 1.0)
                continue
            except Exception as error:  # one bad row must not take its neighbours along
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

    def _rescue(self, work: _Work, error: Exception) -> None:
        """A single piece of work that the database refuses: a record is charged with care, or not at all, but never lost."""
        if isinstance(work, _Record) and (work.settlement is not None or work.rows):
            for way in ("careful", "write-off"):
                try:
                    self._commit([work], False, way)
                except Exception:
                    logger.exception("a charge cannot be written (%s)", way)
                    continue
                logger.warning("request %s was recorded the %s way, without what was to be kept with it: %s", work.row[0], way, error)
                self._finish([work], None)
                return
        logger.error("the ledger cannot write %s", type(work).__name__, exc_info=error)
        self._finish([work], error)

    def _commit(self, batch: Sequence[_Work], again: bool, way: str = "") -> None:
        """Write all of a batch in one transaction. Raises what the database raises; nothing is written then."""
        connection.ensure_connection()
        if self._db is None:
            self._db, self._sql = LedgerSql(), _insert_statement()
        db = self._db
        records = [work for work in batch if isinstance(work, _Record)]
        if again and records:
            written = self._already_written(records)
            records = [record for record in records if record.row[0] not in written]
        if len(records) == len(batch) == 1 and records[0].settlement is None and not records[0].rows:
            self._insert(db, [self._values(db, records[0].row)])  # a single statement is a transaction of its own, and saves a third of the time
            return
        with unhurried(db) if not records else nullcontext():
            self._transaction(db, batch, records, way)

    def _transaction(self, db: LedgerSql, batch: Sequence[_Work], records: Sequence[_Record], way: str) -> None:
        begin(db)
        try:
            users = _by_user(batch, records)
            now = time.time()
            for user_id in sorted(users):
                self._settle_user(db, user_id, users[user_id], now, way)
            for work in batch:
                if isinstance(work, _Prolong):
                    requests.prolong(db, work.owner, now)
            if records:
                self._insert(db, [self._values(db, _with_shortfall(record)) for record in records])
                for document in () if way else [one for record in records for one in record.rows]:
                    document.run(db)
            db.run("COMMIT")
        except BaseException:
            rollback(db)
            raise

    def _settle_user(self, db: LedgerSql, user_id: int, work: _OfUser, now: float, way: str) -> None:
        db.lock(user_id)
        for (reservation, scope), records in work.settlements.items():
            charges = [record.settlement.charge for record in records if record.settlement is not None]
            written_off = way == "write-off"
            charged = [requests.write_off(db, scope, charge) for charge in charges] if written_off else requests.settle(db, reservation, scope, charges, careful=bool(way))
            for record, outcome in zip(records, charged, strict=True):
                record.charged = outcome
        for release in work.releases:
            requests.release(db, release.reservation, release.scope, release.amount, now)
        for reserve in work.reserves:
            order = reserve.order
            reserve.result = requests.reserve(db, order.reservation, order.owner, order.scope, order.budgets, order.need, order.headroom, order.minimum, now)

    def _already_written(self, records: Sequence[_Record]) -> set[str]:
        ids = [record.row[0] for record in records]
        return set(UsageRecord.objects.filter(request_id__in=ids).values_list("request_id", flat=True))

    def _values(self, db: LedgerSql, row: UsageRow) -> UsageRow:
        return (*row[:_STARTED_AT], db.at(row[_STARTED_AT]), *row[_STARTED_AT + 1 :])

    def _insert(self, db: LedgerSql, rows: Sequence[UsageRow]) -> None:
        if db.sqlite:
            with connection.wrap_database_errors:
                connection.connection.executemany(self._sql, rows)
            return
        with connection.cursor() as cursor:
            cursor.executemany(self._sql, rows)

    def _finish(self, batch: Sequence[_Work], error: BaseException | None) -> None:
        self._pending -= len(batch)
        loops: dict[asyncio.AbstractEventLoop, list[_Record | _Reserve]] = {}
        for work in batch:
            if isinstance(work, (_Record, _Reserve)):
                loops.setdefault(work.loop, []).append(work)
        for loop, works in loops.items():
            try:
                loop.call_soon_threadsafe(_resolve, works, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                continue


def _resolve(works: Sequence[_Record | _Reserve], error: BaseException | None) -> None:
    """On the event loop: tell who waits."""
    for work in works:
        if isinstance(work, _Record):
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
            work.future.set_exception(RelayUnavailable("The portal could not look at your balance. Try again in a few seconds.", retry_after=5))


def _by_user(batch: Iterable[_Work], records: Iterable[_Record]) -> dict[int, _OfUser]:
    users: dict[int, _OfUser] = {}
    for record in records:
        if record.settlement is not None:
            settlement = record.settlement
            of_user = users.get(settlement.scope.user_id) or users.setdefault(settlement.scope.user_id, _OfUser())
            of_user.settlements.setdefault((settlement.reservation, settlement.scope), []).append(record)
    for work in batch:
        if isinstance(work, _Release):
            users.setdefault(work.scope.user_id, _OfUser()).releases.append(work)
        elif isinstance(work, _Reserve):
            users.setdefault(work.order.scope.user_id, _OfUser()).reserves.append(work)
    return users


def _with_shortfall(record: _Record) -> UsageRow:
    if record.charged is None or not record.charged.shortfall:
        return record.row
    return (*record.row[:_SHORTFALL], record.charged.shortfall, *record.row[_SHORTFALL + 1 :])


def _insert_statement() -> str:
    """INSERT that ignores a row that is already there, so that a commit of unknown outcome can be repeated."""
    ops, quote = connection.ops, connection.ops.quote_name
    fields = [field for field in UsageRecord._meta.concrete_fields if field.attname in COLUMNS]
    by_name = {field.attname: field for field in fields}
    columns = [quote(by_name[name].column or name) for name in COLUMNS]
    insert = ops.insert_statement(on_conflict=OnConflict.IGNORE)
    suffix = ops.on_conflict_suffix_sql(fields, OnConflict.IGNORE, ["request_id"], ["request_id"])
    sql = f"{insert} {quote(UsageRecord._meta.db_table)} ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))}) {suffix}".strip()
    return sql.replace("%s", "?") if connection.vendor == "sqlite" else sql


writer: Final = UsageWriter()
