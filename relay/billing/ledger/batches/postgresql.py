"""A batch of the writer on PostgreSQL as a few statements, in two round trips, whoever's requests they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from django.db import connection

from portal.services.pipelines import Call, Row, run
from portal.services.postgresql import BoundedConnection
from relay.billing.ledger import requests
from relay.billing.ledger.batches import statements
from relay.billing.ledger.batches.batch import Account, Booking, Unsuited, book, by_user
from relay.billing.ledger.pending import STARTED_AT, PendingRecord, PendingWork, UsageRow
from relay.billing.ledger.sql import LOCK_MILLISECONDS, LedgerSql, rollback

_json: Final = msgspec.json.Encoder().encode
_LOCK_TIMEOUT: Final = b"%d" % LOCK_MILLISECONDS


class PostgreSqlBatches:
    """The batches of one writer."""

    def __init__(self, db: LedgerSql) -> None:
        self.db, self.inserts = db, statements.Inserts()

    def begin(self, batch: Sequence[PendingWork], records: Sequence[PendingRecord]) -> PipelinedBatch | None:
        """As `Batches.begin`."""
        try:
            pipelined = PipelinedBatch(self, book(self.db, batch, records))
            pipelined.write(records)
        except Unsuited:
            rollback(self.db)
            return None
        return pipelined

    def insert(self, rows: Sequence[UsageRow]) -> None:
        """As `Batches.insert`."""
        execute([Call(self.inserts.records, (self.native(rows),))])

    def native(self, rows: Sequence[UsageRow]) -> bytes:
        """Rows of records as the parameter of a statement."""
        at = self.db.at
        return _json([(*row[:STARTED_AT], at(row[STARTED_AT]), *row[STARTED_AT + 1 :]) for row in rows])


@dataclass(slots=True)
class PipelinedBatch:
    """The statements of one batch, in one transaction that the caller commits or rolls back."""

    of: PostgreSqlBatches
    booking: Booking

    def write(self, records: Sequence[PendingRecord]) -> None:
        """Begin the transaction and execute all but reservations, which are decided. Raises Unsuited."""
        booking = self.booking
        sync = b"on" if records else b"off"
        calls = [Call(statements.BEGIN), Call(statements.LOCK, (_json(booking.users), _LOCK_TIMEOUT, sync))]
        charge_at = len(calls)
        if records:
            rows = self.of.native([record.row for record in records])
            calls.append(
                Call(self.of.inserts.charges, (_json(self._charges()), rows, _json(booking.entries)))
                if booking.charges
                else Call(self.of.inserts.records, (rows,))
            )
        if booking.releases:
            calls.append(Call(statements.RELEASE, (_json(self._releases()),)))
        accounts_at = len(calls)
        if booking.orders:
            calls.append(Call(statements.ACCOUNTS, (_json([work.order.scope.values[:3] for work in booking.orders]),)))
        if booking.owners:
            expires = b"%d" % requests.expiry(booking.now)
            calls.append(Call(statements.PROLONG, (_json(booking.owners), expires)))
        found = execute(calls)
        if booking.covering and int(found[charge_at][0][0] or 0) != booking.covering:
            raise Unsuited
        if booking.orders:
            booking.decide(by_user(_account(row) for row in found[accounts_at]))

    def commit(self) -> None:
        """Write the reservations, and commit."""
        calls = [Call(statements.COMMIT)]
        booking = self.booking
        if booking.reserving:
            expires, at = requests.expiry(booking.now), self.of.db.at(booking.now)
            rows = [
                (key, *one.order.scope.values[:3], one.amount, one.order.owner, expires, at)
                for key, one in booking.reserving.items()
            ]
            calls.insert(0, Call(statements.RESERVE, (_json(rows),)))
        execute(calls)

    def _charges(self) -> list[Any]:
        """The rows of CHARGE."""
        return [(one.reservation, *one.scope.values[:3], one.total, one.house) for one in self.booking.charges]

    def _releases(self) -> list[Any]:
        """The rows of RELEASE."""
        at = self.of.db.at(self.booking.now)
        return [(key, *scope.values[:3], amount, at) for key, (scope, amount) in self.booking.releases.items()]


def execute(calls: Sequence[Call]) -> list[list[Row]]:
    """Execute statements on the connection of this thread. Raises Django's errors."""
    database = connection.connection
    assert isinstance(database, BoundedConnection)  # noqa: S101  # of `portal.services.databases`
    with connection.wrap_database_errors:
        return run(database, calls)


def _account(row: Row) -> Account:
    _, kind, period, *numbers = row
    user_id, token_id, first, last, limited, granted, used, reserved = (
        None if number is None else int(number) for number in numbers
    )
    assert kind is not None and period is not None  # noqa: S101  # columns that are never null
    return Account(
        kind.decode(),
        period.decode(),
        user_id or 0,
        token_id,
        first or 0,
        last or 0,
        bool(limited),
        granted or 0,
        used or 0,
        reserved or 0,
    )
