"""A batch of the writer on MySQL and MariaDB as a few statements, whoever's requests they are.

They use what both have, in every version that Django supports: rows are lists of values, and a list that is joined is a
derived table of numbers alone, since a text in it would have a collation of its own, which cannot be compared with that
of a column.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

from django.db import connection

from relay.billing.ledger import requests
from relay.billing.ledger.batches.batch import Account, Booking, Unsuited, book, by_user
from relay.billing.ledger.lines import SpendScope
from relay.billing.ledger.pending import COLUMNS, STARTED_AT, PendingRecord, PendingWork, UsageRow
from relay.billing.ledger.sql import ENTRY_COLUMNS, EntryValues, LedgerSql, begin, rollback
from relay.models import UsageRecord
from relay.models.ledger import EntryKind

# Rows of one INSERT. The server takes 16 MiB in one statement by default, of which a record has some KiB at most.
_ROWS: Final = 250
# A small table would be read as a whole, and rows of others be waited for, unless an index is named.
_AMOUNTS: Final = "SELECT id, amount FROM relay_reservation FORCE INDEX (PRIMARY) WHERE id IN ({}) FOR UPDATE"
_END: Final = "DELETE x FROM relay_reservation x FORCE INDEX (PRIMARY) WHERE x.id IN ({})"
_RESERVATION: Final = "INSERT INTO relay_reservation (id, owner, user_id, token_id, day, amount, expires_at) VALUES"
# A reservation that does not cover what is taken stays as it is, and one that is gone would be inserted: neither counts
# two rows, as one does that is changed.
_TAKE: Final = "ON DUPLICATE KEY UPDATE amount = IF(amount >= VALUES(amount), amount - VALUES(amount), amount)"
_RESERVE: Final = "ON DUPLICATE KEY UPDATE amount = amount + VALUES(amount), expires_at = VALUES(expires_at)"
_CHANGED: Final = 2
_OF_SCOPE: Final = (
    "a.user_id = v.user_id AND (a.token_id IS NULL OR a.token_id = v.token_id) "
    "AND a.first_day <= v.day AND a.last_day >= v.day"
)
_FIRST: Final = "SELECT %s AS user_id, %s AS token_id, %s AS day, %s AS used, %s AS reserved, %s AS house"
_NEXT: Final = " UNION ALL SELECT %s, %s, %s, %s, %s, %s"
# A row that several of the list belong to would be changed once by a join with it, so that they are added up first.
_CHANGE: Final = (
    "UPDATE (SELECT a.id AS id, SUM(v.used) AS used, SUM(v.reserved) AS reserved, "  # noqa: S608  # our own names
    "SUM(CASE WHEN a.kind = 'wallet' THEN v.house ELSE 0 END) AS house "
    f"FROM ({{}}) v STRAIGHT_JOIN relay_ledgeraccount a FORCE INDEX (account_of_user) ON {_OF_SCOPE} GROUP BY a.id) s "
    "STRAIGHT_JOIN relay_ledgeraccount x FORCE INDEX (PRIMARY) ON x.id = s.id "
    "SET x.used = x.used + s.used, x.reserved = x.reserved + s.reserved, x.granted = x.granted + s.house"
)
_ACCOUNTS: Final = (
    "SELECT kind, period, user_id, token_id, first_day, last_day, limited, granted, used, reserved "
    "FROM relay_ledgeraccount WHERE user_id IN ({}) AND last_day >= %s AND first_day <= %s"
)


@dataclass(slots=True)
class _Change:
    """What is added to the accounts of one scope, in nano-USD."""

    used: int = 0
    reserved: int = 0
    house: int = 0


class MySqlBatches:
    """The batches of one writer."""

    def __init__(self, db: LedgerSql) -> None:
        self.db = db
        quote = connection.ops.quote_name
        names = {field.attname: field.column or field.attname for field in UsageRecord._meta.concrete_fields}
        columns = ", ".join(quote(names[name]) for name in COLUMNS)
        self._records = f"INSERT INTO {quote(UsageRecord._meta.db_table)} ({columns}) VALUES"
        self._entries = f"INSERT INTO relay_ledgerentry ({', '.join(ENTRY_COLUMNS)}) VALUES"

    def begin(self, batch: Sequence[PendingWork], records: Sequence[PendingRecord]) -> ListedBatch | None:
        """As `Batches.begin`."""
        try:
            booking = book(self.db, batch, records)
            begin(self.db)
            listed = ListedBatch(self, booking)
            listed.write(records)
        except Unsuited:
            rollback(self.db)
            return None
        return listed

    def insert(self, rows: Sequence[UsageRow]) -> None:
        """As `Batches.insert`."""
        at = self.db.at
        # A row that exists stays as it is, so that a commit of unknown outcome can be repeated. IGNORE would also take
        # values that the columns do not, and change them.
        self.many(
            self._records,
            [(*row[:STARTED_AT], at(row[STARTED_AT]), *row[STARTED_AT + 1 :]) for row in rows],
            "ON DUPLICATE KEY UPDATE request_id = request_id",
        )

    def write(self, entries: Sequence[EntryValues]) -> None:
        """Insert ledger entries."""
        self.many(self._entries, entries)

    def many(self, insert: str, rows: Sequence[Sequence[Any]], suffix: str = "") -> int:
        """Insert rows; returns how many rows are said to have been changed."""
        changed = 0
        for some in _parts(rows):
            values = ", ".join([f"({_placeholders(len(some[0]))})"] * len(some))
            changed += self.db.run(f"{insert} {values} {suffix}", list(chain.from_iterable(some))).rowcount
        return changed


@dataclass(slots=True)
class ListedBatch:
    """The statements of one batch, in one transaction that the caller commits or rolls back."""

    of: MySqlBatches
    booking: Booking
    changes: dict[SpendScope, _Change] = field(default_factory=dict)
    entries: list[EntryValues] = field(default_factory=list)

    def write(self, records: Sequence[PendingRecord]) -> None:
        """Execute all in the transaction that has begun. Raises Unsuited."""
        booking, db = self.booking, self.of.db
        db.lock(*booking.users)
        self.entries += booking.entries
        self._charge()
        self._release()
        if booking.orders:
            booking.decide(self._accounts())
            self._reserve()
        if self.changes:
            lists = _FIRST + _NEXT * (len(self.changes) - 1)
            rows = [(*scope.values[:3], one.used, one.reserved, one.house) for scope, one in self.changes.items()]
            db.run(_CHANGE.format(lists), list(chain.from_iterable(rows)))
        for owner in booking.owners:
            requests.prolong(db, owner, booking.now)
        self.of.write(self.entries)
        if records:
            self.of.insert([record.row for record in records])

    def commit(self) -> None:
        self.of.db.run("COMMIT")

    def _change(self, scope: SpendScope) -> _Change:
        return self.changes.get(scope) or self.changes.setdefault(scope, _Change())

    def _charge(self) -> None:
        taken = []
        for charge in self.booking.charges:
            change = self._change(charge.scope)
            change.used += charge.total
            change.house += charge.house
            if charge.reservation:
                change.reserved -= charge.total
                taken.append((charge.reservation, charge.scope, charge.total))
        self._take(taken)

    def _take(self, taken: Sequence[tuple[str, SpendScope, int]]) -> None:
        """Take amounts from reservations. Raises Unsuited if one is gone, or does not cover its amount."""
        if taken:
            rows = [(key, "", *scope.values[:3], amount, 0) for key, scope, amount in taken]
            if self.of.many(_RESERVATION, rows, _TAKE) != _CHANGED * len(rows):
                raise Unsuited

    def _release(self) -> None:
        releases, db = self.booking.releases, self.of.db
        if not releases:
            return
        found = db.run(_AMOUNTS.format(_placeholders(len(releases))), sorted(releases)).fetchall()
        ended, smaller = [], []
        for key, there in found:
            scope, amount = releases[key]
            released = there if amount is None else min(amount, there)
            if amount is None:
                ended.append(key)
            elif released:
                smaller.append((key, scope, released))
            if released:
                self._change(scope).reserved -= released
                self._hold(EntryKind.RELEASE, scope, released, key)
        if ended:
            db.run(_END.format(_placeholders(len(ended))), ended)
        self._take(smaller)

    def _accounts(self) -> dict[int, list[Account]]:
        """The accounts of the orders by user, as they will be after the charges and releases."""
        scopes = {work.order.scope for work in self.booking.orders}
        users, days = sorted({scope.user_id for scope in scopes}), [scope.day for scope in scopes]
        sql = _ACCOUNTS.format(_placeholders(len(users)))
        found = by_user(Account(*row) for row in self.of.db.run(sql, (*users, min(days), max(days))).fetchall())
        for scope, change in self.changes.items():
            for account in found.get(scope.user_id, ()):
                if account.has(scope):
                    account.used += change.used
                    account.reserved += change.reserved
                    account.granted += change.house if account.kind == "wallet" else 0
        return found

    def _reserve(self) -> None:
        booking = self.booking
        expires, rows = requests.expiry(booking.now), []
        for key, one in booking.reserving.items():
            scope = one.order.scope
            rows.append((key, one.order.owner, *scope.values[:3], one.amount, expires))
            self._change(scope).reserved += one.amount
            self._hold(EntryKind.RESERVE, scope, one.amount, key)
        self.of.many(_RESERVATION, rows, _RESERVE)

    def _hold(self, kind: EntryKind, scope: SpendScope, amount: int, reservation: str) -> None:
        self.entries.append(requests.holding_entry(self.of.db, self.booking.now, kind, scope, amount, reservation))


def _placeholders(number: int) -> str:
    return ", ".join(["%s"] * number)


def _parts(rows: Sequence[Sequence[Any]]) -> Iterator[Sequence[Sequence[Any]]]:
    for first in range(0, len(rows), _ROWS):
        yield rows[first : first + _ROWS]
