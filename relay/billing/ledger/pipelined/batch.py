"""A batch of the writer on PostgreSQL as a few statements, in two round trips, whoever's requests they are.

What goes as usual is written here: charges that their reservations cover, releases, reservations in accounts that
exist. `relay.billing.ledger.commits` writes the rest, one after another.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from django.db import connection

from portal.services.pipelines import Call, Row, run
from portal.services.postgresql import BoundedConnection
from relay.billing.ledger import requests
from relay.billing.ledger.lines import Charged, ReserveOrder, SpendScope
from relay.billing.ledger.pending import (
    STARTED_AT,
    PendingProlongation,
    PendingRecord,
    PendingRelease,
    PendingReservation,
    PendingWork,
    UsageRow,
    UserBatch,
    by_user,
)
from relay.billing.ledger.pipelined import statements
from relay.billing.ledger.sql import EntryValues, LedgerSql, rollback

_json: Final = msgspec.json.Encoder().encode


class _Unsuited(Exception):
    """The batch has to be written otherwise."""


@dataclass(slots=True)
class _Account:
    """An account that limits reservations. Amounts in nano-USD."""

    kind: str
    period: str
    user_id: int
    token_id: int | None
    first_day: int
    last_day: int
    limited: bool
    granted: int
    used: int
    reserved: int

    def has(self, scope: SpendScope) -> bool:
        return (
            self.user_id == scope.user_id
            and self.token_id in {None, scope.token_id}
            and self.first_day <= scope.day <= self.last_day
        )

    @property
    def values(self) -> requests.AccountRow:
        return (self.kind, self.period, self.token_id, self.limited, self.granted, self.used, self.reserved)


@dataclass(slots=True)
class _Reserving:
    """What is reserved in one reservation."""

    order: ReserveOrder
    amount: int = 0


class Pipelining:
    """The batches of one writer on PostgreSQL."""

    def __init__(self, db: LedgerSql) -> None:
        self.db, self.inserts = db, statements.Inserts()

    def begin(self, batch: Sequence[PendingWork], records: Sequence[PendingRecord]) -> PipelinedBatch | None:
        """Write a batch in a transaction that has to be committed. Returns None if it has to be written otherwise."""
        pipelined = PipelinedBatch(self, time.time())
        try:
            pipelined.write(batch, records)
        except _Unsuited:
            rollback(self.db)
            return None
        return pipelined

    def insert(self, rows: Sequence[UsageRow]) -> None:
        """Insert records that have no charges; outside a transaction, in one of its own."""
        execute([Call(self.inserts.records, (self.native(rows),))])

    def native(self, rows: Sequence[UsageRow]) -> bytes:
        """Rows of records as the parameter of a statement."""
        at = self.db.at
        return _json([(*row[:STARTED_AT], at(row[STARTED_AT]), *row[STARTED_AT + 1 :]) for row in rows])


@dataclass(slots=True)
class PipelinedBatch:
    """The statements of one batch, in one transaction that the caller commits or rolls back."""

    of: Pipelining
    now: float
    reserving: dict[str, _Reserving] = field(default_factory=dict)

    def write(self, batch: Sequence[PendingWork], records: Sequence[PendingRecord]) -> None:
        """Begin the transaction and execute all but reservations, which are decided. Raises _Unsuited."""
        users = by_user(batch, records)
        calls = [Call(statements.BEGIN)]
        if not records:
            calls.append(Call(statements.NO_DISK_SYNC))
        if users:
            calls.append(Call(statements.LOCK, (_json(sorted(users)),)))
        entries: list[EntryValues] = []
        charges, reservations = self._charges(users.values(), entries)
        charge_at = len(calls)
        if records:
            rows = self.of.native([record.row for record in records])
            calls.append(
                Call(self.of.inserts.charges, (_json(charges), rows, _json(entries)))
                if charges
                else Call(self.of.inserts.records, (rows,))
            )
        releases = self._releases(work for user in users.values() for work in user.releases)
        if releases:
            calls.append(Call(statements.RELEASE, (_json(releases),)))
        orders = [work for user_id in sorted(users) for work in users[user_id].reserves]
        accounts_at = len(calls)
        if orders:
            calls.append(Call(statements.ACCOUNTS, (_json([work.order.scope.values[:3] for work in orders]),)))
        owners = [work.owner for work in batch if isinstance(work, PendingProlongation)]
        if owners:
            expires = b"%d" % requests.expiry(self.now)
            calls.append(Call(statements.PROLONG, (_json(owners), expires)))
        found = execute(calls)
        if reservations and int(found[charge_at][0][0] or 0) != reservations:
            raise _Unsuited
        if orders:
            self._decide(orders, [_account(row) for row in found[accounts_at]])

    def commit(self) -> None:
        """Write the reservations, and commit."""
        calls = [Call(statements.COMMIT)]
        if self.reserving:
            expires, at = requests.expiry(self.now), self.of.db.at(self.now)
            rows = [
                (key, *one.order.scope.values[:3], one.amount, one.order.owner, expires, at)
                for key, one in self.reserving.items()
            ]
            calls.insert(0, Call(statements.RESERVE, (_json(rows),)))
        execute(calls)

    def _charges(self, users: Iterable[UserBatch], entries: list[EntryValues]) -> tuple[list[Any], int]:
        """The rows of CHARGE, and how many of them have a reservation. Adds the entries."""
        db = self.of.db
        rows: list[Any] = []
        reservations = 0
        for user in users:
            for (reservation, scope), records in user.settlements.items():
                total = house = 0
                for record in records:
                    assert record.settlement is not None  # noqa: S101  # or it would not be among them
                    charge = record.settlement.charge
                    held = charge.cost if reservation else 0
                    total += charge.cost
                    house += charge.cost if charge.house else 0
                    if charge.cost:
                        entries.append(requests.usage_entry(db, scope, charge, (charge.cost, held), reservation))
                    record.charged = Charged(held, 0)
                if total > requests.LARGE:
                    raise _Unsuited
                rows.append((reservation, *scope.values[:3], total, house))
                reservations += bool(reservation)
        return rows, reservations

    def _releases(self, releases: Iterable[PendingRelease]) -> list[Any]:
        """The rows of RELEASE: those of one reservation together."""
        found: dict[str, tuple[SpendScope, int | None]] = {}
        for release in releases:
            _, before = found.get(release.reservation, (None, 0))
            whole = before is None or release.amount is None
            found[release.reservation] = (release.scope, None if whole else (before or 0) + (release.amount or 0))
        at = self.of.db.at(self.now)
        return [(key, *scope.values[:3], amount, at) for key, (scope, amount) in found.items()]

    def _decide(self, works: Sequence[PendingReservation], accounts: Sequence[_Account]) -> None:
        """Decide what each order gets, one after another: what one has is no longer free for the next."""
        for work in works:
            order = work.order
            own = [account for account in accounts if account.has(order.scope)]
            rows = [account.values for account in own]
            if requests.is_missing(rows, order):
                raise _Unsuited
            work.result = requests.decide(order, requests.tightest(rows))
            if work.result.granted:
                reserving = self.reserving.setdefault(order.reservation, _Reserving(order))
                if reserving.order.scope != order.scope:
                    raise _Unsuited
                reserving.amount += work.result.granted
                for account in own:
                    account.reserved += work.result.granted


def execute(calls: Sequence[Call]) -> list[list[Row]]:
    """Execute statements on the connection of this thread. Raises Django's errors."""
    database = connection.connection
    assert isinstance(database, BoundedConnection)  # noqa: S101  # of `portal.services.databases`
    with connection.wrap_database_errors:
        return run(database, calls)


def _account(row: Row) -> _Account:
    _, kind, period, *numbers = row
    user_id, token_id, first, last, limited, granted, used, reserved = (
        None if number is None else int(number) for number in numbers
    )
    assert kind is not None and period is not None  # noqa: S101  # columns that are never null
    return _Account(
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
