"""What is the same in a batch on every database that writes it as a few statements for all users.

That is what goes as usual: charges that their reservations cover, releases, reservations in accounts that exist.
`relay.billing.ledger.commits` writes the rest, one after another.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from relay.billing.ledger import requests
from relay.billing.ledger.lines import Charged, ReserveOrder, SpendScope
from relay.billing.ledger.pending import (
    PendingProlongation,
    PendingRecord,
    PendingRelease,
    PendingReservation,
    PendingWork,
    UsageRow,
    UserBatch,
    work_by_user,
)
from relay.billing.ledger.sql import EntryValues, LedgerSql


class Unsuited(Exception):
    """The batch has to be written otherwise."""


@dataclass(frozen=True, slots=True)
class ChargeSum:
    """The charges of one scope to one reservation, or to its accounts. Amounts in nano-USD."""

    reservation: str  # empty: none
    scope: SpendScope
    total: int
    house: int  # of the total, what the portal pays


@dataclass(slots=True)
class Account:
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
class Reserving:
    """What is reserved in one reservation."""

    order: ReserveOrder
    amount: int = 0  # nano-USD


@dataclass(slots=True)
class Booking:
    """A batch, divided into what each statement is about."""

    now: float
    users: list[int] = field(default_factory=list)  # in the order in which they are locked
    charges: list[ChargeSum] = field(default_factory=list)
    entries: list[EntryValues] = field(default_factory=list)  # of the charges
    releases: dict[str, tuple[SpendScope, int | None]] = field(default_factory=dict)  # None: all, which ends it
    orders: list[PendingReservation] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)  # whose reservations are prolonged
    reserving: dict[str, Reserving] = field(default_factory=dict)  # by reservation, what the orders get

    @property
    def covering(self) -> int:
        """How many reservations must cover their charges."""
        return sum(1 for charge in self.charges if charge.reservation)

    def decide(self, accounts: Mapping[int, Sequence[Account]]) -> None:
        """Decide what each order gets, one after another: what one has is no longer free for the next.

        `accounts` are those of the orders' users, as they are after the charges and releases. Raises Unsuited.
        """
        for work in self.orders:
            order = work.order
            own = [account for account in accounts.get(order.scope.user_id, ()) if account.has(order.scope)]
            rows = [account.values for account in own]
            if requests.is_missing(rows, order):
                raise Unsuited
            work.result = requests.decide(order, requests.tightest(rows))
            if work.result.granted:
                reserving = self.reserving.setdefault(order.reservation, Reserving(order))
                if reserving.order.scope != order.scope:
                    raise Unsuited
                reserving.amount += work.result.granted
                for account in own:
                    account.reserved += work.result.granted


class BegunBatch(Protocol):
    """A batch in a transaction that the caller commits or rolls back."""

    def commit(self) -> None: ...


class Batches(Protocol):
    """Writes the batches of one writer."""

    db: LedgerSql

    def begin(self, batch: Sequence[PendingWork], records: Sequence[PendingRecord]) -> BegunBatch | None:
        """Write a batch in a transaction that has to be committed. Returns None if it has to be written otherwise."""

    def insert(self, rows: Sequence[UsageRow]) -> None:
        """Insert records that have no charges; outside a transaction, in one of its own."""


def book(db: LedgerSql, batch: Sequence[PendingWork], records: Sequence[PendingRecord]) -> Booking:
    """Divide a batch. Raises Unsuited."""
    users = work_by_user(batch, records)
    booking = Booking(time.time(), sorted(users))
    for user_id in booking.users:
        user = users[user_id]
        _add_charges(booking, db, user)
        _add_releases(booking, user.releases)
        booking.orders += user.reserves
    booking.owners = [work.owner for work in batch if isinstance(work, PendingProlongation)]
    return booking


def by_user(accounts: Iterable[Account]) -> dict[int, list[Account]]:
    found: dict[int, list[Account]] = {}
    for account in accounts:
        found.setdefault(account.user_id, []).append(account)
    return found


def _add_charges(booking: Booking, db: LedgerSql, user: UserBatch) -> None:
    for (reservation, scope), records in user.settlements.items():
        total = house = 0
        for record in records:
            assert record.settlement is not None  # noqa: S101  # or it would not be among them
            charge = record.settlement.charge
            held = charge.cost if reservation else 0
            total += charge.cost
            house += charge.cost if charge.house else 0
            if charge.cost:
                booking.entries.append(requests.usage_entry(db, scope, charge, (charge.cost, held), reservation))
            record.charged = Charged(held, 0)
        if total > requests.LARGE:
            raise Unsuited
        booking.charges.append(ChargeSum(reservation, scope, total, house))


def _add_releases(booking: Booking, releases: Iterable[PendingRelease]) -> None:
    """Those of one reservation together."""
    found = booking.releases
    for release in releases:
        _, before = found.get(release.reservation, (None, 0))
        whole = before is None or release.amount is None
        found[release.reservation] = (release.scope, None if whole else (before or 0) + (release.amount or 0))
