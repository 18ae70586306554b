"""Durable usage records, committed in groups.

One thread per process takes all records that are waiting and commits them in one transaction. A request waits for its commit before its
last bytes go out; so whoever has a whole answer has a record on disk, whatever happens to the process afterwards.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models.constants import OnConflict

from relay.errors import RelayUnavailable
from relay.models import UsageRecord

logger: Final = logging.getLogger(__name__)

COLUMNS: Final = (
    "request_id", "client_request_id", "started_at", "user_id", "token_id", "channel_id", "api_key_id", "model", "upstream_model",
    "endpoint", "streamed", "status", "end_reason", "error_code", "error_message", "input_tokens", "cached_input_tokens",
    "cache_write_tokens", "output_tokens", "reasoning_tokens", "audio_input_tokens", "audio_output_tokens", "usage_source",
    "latency_ms", "first_token_ms", "attempts", "attempt_log", "client_ip",
)  # fmt: skip
_STARTED_AT: Final = COLUMNS.index("started_at")
_BATCH: Final = 500
_LINGER: Final = 0.001  # seconds; under load it is regained several times over in work that is not done
_BACKLOG: Final = 20_000  # records that may wait for a database that is away; beyond it new requests are refused
Row = tuple[Any, ...]


@dataclass(slots=True)
class _Waiting:
    row: Row
    future: asyncio.Future[None] | None


class UsageWriter:
    """`submit` from the event loop; everything else happens in the thread."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._pending = 0
        self._failing_since = 0.0
        self._sql = ""
        self._stopping = False

    def admit(self) -> None:
        """Refuse work that could not be recorded. Raises RelayUnavailable."""
        if self._failing_since and (self._pending > _BACKLOG or time.monotonic() - self._failing_since > 1.0):
            raise RelayUnavailable("The portal cannot write to its database. Try again in a few seconds.", retry_after=5)

    def submit(self, row: Row, wait: bool = True) -> asyncio.Future[None] | None:
        """Queue a record (values in the order of COLUMNS, `started_at` in seconds since 1970).

        The record is kept from here on, whether or not somebody awaits the future, which is done when the record is on disk.
        """
        if self._thread is None:
            self.start()
        future = asyncio.get_running_loop().create_future() if wait else None
        self._pending += 1
        self._queue.put(_Waiting(row, future))
        return future

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
            batch: list[_Waiting] = []
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

    def _write(self, batch: Sequence[_Waiting]) -> None:
        pause = 0.05
        while True:
            try:
                self._insert([waiting.row for waiting in batch])
            except (OperationalError, InterfaceError) as error:
                if not self._failing_since:
                    self._failing_since = time.monotonic()
                    logger.error("usage records wait: the database cannot be written: %s", error)
                connection.close()
                if self._stopping and time.monotonic() - self._failing_since > 10:
                    self._finish(batch, error)
                    return
                time.sleep(pause)
                pause = min(pause * 2, 1.0)
                continue
            except Exception as error:  # one bad row must not take its neighbours along
                if len(batch) > 1:
                    for waiting in batch:
                        self._write([waiting])
                    return
                logger.exception("a usage record cannot be written")
                self._finish(batch, error)
                return
            if self._failing_since:
                logger.warning("the database can be written again after %.1f s", time.monotonic() - self._failing_since)
                self._failing_since = 0.0
            self._finish(batch, None)
            return

    def _insert(self, rows: Sequence[Row]) -> None:
        if not self._sql:
            self._sql = _insert_statement()
        adapt = connection.ops.adapt_datetimefield_value
        values = []
        for row in rows:
            at = adapt(datetime.fromtimestamp(row[_STARTED_AT], UTC))
            values.append((*row[:_STARTED_AT], at, *row[_STARTED_AT + 1 :]))
        if connection.vendor == "sqlite":
            self._insert_sqlite(values)
            return
        with connection.cursor() as cursor:
            if len(values) == 1:  # a single statement is a transaction of its own, and saves a third of the time
                cursor.execute(self._sql, values[0])
            else:
                with transaction.atomic():
                    cursor.executemany(self._sql, values)

    def _insert_sqlite(self, values: Sequence[Row]) -> None:
        """The same without Django's cursor, which takes as long as SQLite itself for a row: at one connection that is every request's."""
        connection.ensure_connection()
        database: sqlite3.Connection = connection.connection
        sql = self._sql.replace("%s", "?")
        with connection.wrap_database_errors:
            if len(values) == 1:
                database.execute(sql, values[0])
                return
            database.execute("BEGIN IMMEDIATE")
            try:
                database.executemany(sql, values)
                database.execute("COMMIT")
            except BaseException:
                if database.in_transaction:
                    database.execute("ROLLBACK")
                raise

    def _finish(self, batch: Sequence[_Waiting], error: BaseException | None) -> None:
        self._pending -= len(batch)
        loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        for waiting in batch:
            if waiting.future is not None:
                loops.setdefault(waiting.future.get_loop(), []).append(waiting.future)
        for loop, futures in loops.items():
            try:
                loop.call_soon_threadsafe(_resolve, futures, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                continue


def _resolve(futures: list[asyncio.Future[None]], error: BaseException | None) -> None:
    for future in futures:
        if not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(RelayUnavailable("The portal could not record this request. Try again in a few seconds.", retry_after=5))


def _insert_statement() -> str:
    """INSERT that ignores a row that is already there, so that a commit of unknown outcome can be repeated."""
    ops, quote = connection.ops, connection.ops.quote_name
    fields = [field for field in UsageRecord._meta.concrete_fields if field.attname in COLUMNS]
    by_name = {field.attname: field for field in fields}
    columns = [quote(by_name[name].column or name) for name in COLUMNS]
    insert = ops.insert_statement(on_conflict=OnConflict.IGNORE)
    suffix = ops.on_conflict_suffix_sql(fields, OnConflict.IGNORE, ["request_id"], ["request_id"])
    return f"{insert} {quote(UsageRecord._meta.db_table)} ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))}) {suffix}".strip()


writer: Final = UsageWriter()
