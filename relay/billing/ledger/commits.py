"""Writes a batch of the writer's work in one transaction: records with their charges and rows, reservations, releases.

Whether a record is charged is decided right before its COMMIT: until then it can be withdrawn, since its answer is not
given, and the transaction is made again without it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from itertools import groupby
from typing import TYPE_CHECKING, Final

from django.db import DatabaseError, OperationalError, connection
from django.db.models.constants import OnConflict

from portal.services.databases import is_lock_conflict
from relay.billing.ledger import requests
from relay.billing.ledger.batches.locked import locked_users
from relay.billing.ledger.pending import (
    COLUMNS,
    STARTED_AT,
    PendingProlongation,
    PendingRecord,
    PendingWork,
    UsageRow,
    UserBatch,
    Withdrawn,
    with_shortfall,
    work_by_user,
)
from relay.billing.ledger.sql import LedgerSql, begin, rollback, without_disk_sync
from relay.models import UsageRecord

if TYPE_CHECKING:
    from relay.billing.ledger.batches.batch import Batches

# Ways to write a record that the database refuses: see `relay.billing.ledger.writer`.
WITHOUT_ROWS: Final = frozenset(("careful without rows", "write-off without rows", "without rows"))


class Commits:
    """The transactions of one writer. Used in its thread, but for `withdraw`."""

    def __init__(self) -> None:
        self._sql = ""
        self._db: LedgerSql | None = None
        self._batches: Batches | None = None  # None: on SQLite, where a statement has no way to go
        self._fixing = threading.Lock()  # of `PendingRecord.withdrawn` and `fixed`

    def withdraw(self, record: PendingRecord, row: UsageRow) -> bool:
        """Have `row` written in the place of a record; returns False once its COMMIT has been sent."""
        with self._fixing:
            if not record.fixed:
                record.withdrawn = row
            return not record.fixed

    def parts(self, batch: Sequence[PendingWork]) -> list[list[PendingWork]]:
        """Divide a batch into those to be written one after another: what one record needs does not delay all others.

        What has to be written statement by statement is apart from the rest, and first: it may be charged with more
        than is reserved, before a release makes that smaller. On SQLite everything is.
        """
        if connection.vendor == "sqlite":
            return [list(batch)]
        slow: list[PendingWork] = [work for work in batch if isinstance(work, PendingRecord) and not _is_plain(work)]
        apart = {id(work) for work in slow}
        return [part for part in (slow, [work for work in batch if id(work) not in apart]) if part]

    def write(self, batch: Sequence[PendingWork], again: bool, way: str = "") -> None:
        """Write a batch in one transaction. Raises what the database raises; nothing is written then.

        `again`: the batch may have been written before. `way`: how a record is written that was refused before.
        """
        try:
            self._write(self._connected(), batch, again, way)
        except OperationalError as error:
            if is_lock_conflict(error):
                self._unfix(work for work in batch if isinstance(work, PendingRecord))
            raise

    def _connected(self) -> LedgerSql:
        if self._db is None:
            connection.ensure_connection()
            self._db, self._sql = LedgerSql(), _insert_statement()
            self._batches = _batches(self._db)
        self._db.attach()
        return self._db

    def _write(self, db: LedgerSql, batch: Sequence[PendingWork], again: bool, way: str) -> None:
        records = [work for work in batch if isinstance(work, PendingRecord)]
        if again and records:
            written = self._already_written(records)
            records = [record for record in records if record.row[0] not in written]
            self._unfix(records)
        for record in records:
            record.take_over()
        if len(records) == len(batch) == 1 and records[0].settlement is None and not records[0].rows:
            # A single statement is a transaction of its own, and saves a third of the time.
            self._fix(records)
            self._insert(db, [records[0].row])
            return
        if self._batches is not None and not way and self._write_together(self._batches, batch, records):
            return
        with without_disk_sync(db) if not records else nullcontext():
            self._transaction(db, batch, records, way)

    def _write_together(self, batches: Batches, batch: Sequence[PendingWork], records: Sequence[PendingRecord]) -> bool:
        """Write a batch as a few statements for all users. Returns False if it has to be written otherwise."""
        if not all(_is_plain(record) for record in records):
            return False
        try:
            begun = batches.begin(batch, records)
            if begun is None:
                return False
            for record in records:
                for row_write in record.rows:
                    row_write.run(batches.db)
            self._fix(records)
            begun.commit()
        except BaseException:
            rollback(batches.db)
            raise
        return True

    def _transaction(
        self, db: LedgerSql, batch: Sequence[PendingWork], records: Sequence[PendingRecord], way: str
    ) -> None:
        begin(db)
        try:
            users = work_by_user(batch, records)
            now = time.time()
            for user_id in sorted(users):
                self._settle_user(db, user_id, users[user_id], now, way)
            for work in batch:
                if isinstance(work, PendingProlongation):
                    requests.prolong(db, work.owner, now)
            if records:
                self._insert(db, [with_shortfall(record) for record in records])
                for row_write in () if way in WITHOUT_ROWS else [one for record in records for one in record.rows]:
                    if way:
                        row_write.run_apart(db)
                    else:
                        row_write.run(db)
            self._fix(records)
            db.run("COMMIT")
        except BaseException:
            rollback(db)
            raise

    def _fix(self, records: Sequence[PendingRecord]) -> None:
        """What is written is now committed as it is. Raises Withdrawn when that is no longer wanted of a record."""
        with self._fixing:
            if any(record.withdrawn is not None and record.row is not record.withdrawn for record in records):
                raise Withdrawn
            for record in records:
                record.fixed = True

    def _unfix(self, records: Iterable[PendingRecord]) -> None:
        """A commit of unknown outcome was none of these."""
        with self._fixing:
            for record in records:
                record.fixed = False

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
        for _, same in groupby(work.reserves, lambda one: (one.order.reservation, list(one.order.budgets))):
            reserves = list(same)
            results = requests.reserve_all(db, [reserve.order for reserve in reserves], now)
            for reserve, result in zip(reserves, results, strict=True):
                reserve.result = result

    def locked(self, batch: Iterable[PendingWork]) -> set[int]:
        """As `locked_users`; nobody when the database does not say."""
        try:
            return locked_users(self._connected(), batch)
        except DatabaseError:
            return set()

    def _already_written(self, records: Sequence[PendingRecord]) -> set[str]:
        ids = [record.row[0] for record in records]
        return set(UsageRecord.objects.filter(request_id__in=ids).values_list("request_id", flat=True))

    def _values(self, db: LedgerSql, row: UsageRow) -> UsageRow:
        return (*row[:STARTED_AT], db.at(row[STARTED_AT]), *row[STARTED_AT + 1 :])

    def _insert(self, db: LedgerSql, records: Sequence[UsageRow]) -> None:
        if self._batches is not None:
            self._batches.insert(records)
        else:
            db.insert(self._sql, [self._values(db, row) for row in records])


def _batches(db: LedgerSql) -> Batches | None:
    """The way of this database to write a batch. A driver is imported only where it is used."""
    if connection.vendor == "postgresql":
        from relay.billing.ledger.batches.postgresql import PostgreSqlBatches

        return PostgreSqlBatches(db)
    if connection.vendor == "mysql":
        from relay.billing.ledger.batches.mysql import MySqlBatches

        return MySqlBatches(db)
    return None


def _is_plain(record: PendingRecord) -> bool:
    """Whether a record costs nothing, or no more than its reservation covers."""
    settlement = record.settlement
    return settlement is None or requests.is_covered(settlement.charge, settlement.reservation)


def _insert_statement() -> str:
    """Return an INSERT that ignores a row that exists, so that a commit of unknown outcome can be repeated."""
    ops, quote = connection.ops, connection.ops.quote_name
    fields = [field for field in UsageRecord._meta.concrete_fields if field.attname in COLUMNS]
    by_name = {field.attname: field for field in fields}
    columns = [quote(by_name[name].column or name) for name in COLUMNS]
    insert = ops.insert_statement(on_conflict=OnConflict.IGNORE)
    suffix = ops.on_conflict_suffix_sql(fields, OnConflict.IGNORE, ["request_id"], ["request_id"])
    return (
        f"{insert} {quote(UsageRecord._meta.db_table)} ({', '.join(columns)}) VALUES "
        f"({', '.join(['%s'] * len(columns))}) {suffix}"
    ).strip()
