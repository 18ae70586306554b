"""Verifies the ledger: computes every figure of every account again from the entries, and compares.

Reads one consistent state of the database while workers go on writing. Changes nothing.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from django.db import connection

from accounts.transactions import consistent_read
from portal.lib import money
from relay.models.ledger import EntryKind

_CHUNK: Final = 2000
_HALF: Final = 2**32
# By kind of entry: the accounts that it may debit, and the one that it credits.
_RULES: dict[str, tuple[frozenset[str], str]] = {
    EntryKind.STARTING: (frozenset({"house"}), "wallet"),
    EntryKind.TOP_UP: (frozenset({"funding"}), "wallet"),
    EntryKind.DEDUCT: (frozenset({"wallet"}), "funding"),
    EntryKind.REDEEM: (frozenset({"codes"}), "wallet"),
    EntryKind.RESERVE: (frozenset({"wallet"}), "held"),
    EntryKind.RELEASE: (frozenset({"held"}), "wallet"),
    EntryKind.USAGE: (frozenset({"wallet", "held", "house"}), "revenue"),
    EntryKind.SHORTFALL: (frozenset({"house"}), "revenue"),
}
_GRANTS = (EntryKind.STARTING, EntryKind.TOP_UP, EntryKind.REDEEM)


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure that differs from its entries."""

    where: str  # key of the account, or the user, in words
    what: str  # name of the figure
    is_now: int  # nano-USD
    should_be: int  # nano-USD

    def __str__(self) -> str:
        return (
            f"{self.where}: {self.what} is {money.plain(self.is_now)} USD, the entries make it "
            f"{money.plain(self.should_be)} USD"
        )


@dataclass(slots=True)
class Report:
    """The outcome of a verification: how much was read, and what differs."""

    accounts: int = 0
    entries: int = 0
    records: int = 0  # of usage
    removed: int = 0  # records of usage that have been deleted, of which sums are left
    reservations: int = 0
    reserved: int = 0  # nano-USD
    differences: list[Difference] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=dict)  # credits less debits in nano-USD, by side of the entries

    @property
    def clean(self) -> bool:
        return not self.differences


@dataclass(slots=True)
class _TokenDay:
    """Sums over the entries of one token and day, in nano-USD."""

    used: int = 0
    reserved: int = 0


@dataclass(slots=True)
class _UserTotals:
    """Sums over the entries of one user, in nano-USD."""

    by_day: dict[tuple[int | None, int], _TokenDay] = field(
        default_factory=lambda: defaultdict(_TokenDay)
    )  # by token and day
    granted: int = 0
    paid: int = 0  # by usage entries
    shortfall: int = 0
    has_wallet: bool = False

    def add(self, token: int | None, day: int, kind: str, debit: str, amount: int, held: int) -> None:
        sums = self.by_day[token, day]
        self.granted += granted_by(kind, debit, amount)
        if kind == EntryKind.RESERVE:
            sums.reserved += amount
        elif kind == EntryKind.RELEASE:
            sums.reserved -= amount
        elif kind == EntryKind.USAGE:
            sums.used += amount
            sums.reserved -= held
            self.paid += amount
        elif kind == EntryKind.SHORTFALL:
            self.shortfall += amount


def granted_by(kind: str, debit: str, amount: int) -> int:
    """What entries of a kind add to the figure `granted` of a wallet, in nano-USD."""
    if kind in _GRANTS or (kind == EntryKind.USAGE and debit == "house"):
        return amount
    return -amount if kind == EntryKind.DEDUCT else 0


def verify(progress: Callable[[str], None] = lambda _: None) -> Report:
    """Verify the whole ledger. `progress` is called with the name of each stage.

    Goes user by user: memory grows with the entries of one user and with the number of users.
    """
    with _sorting_on_disk(), consistent_read():
        return _verify(progress)


@contextmanager
def _sorting_on_disk() -> Iterator[None]:
    """Let SQLite sort in a file. In memory, as for requests, it takes 0.5 GB with five million entries."""
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA temp_store=FILE")
        try:
            yield
        finally:
            cursor.execute("PRAGMA temp_store=MEMORY")


def _verify(progress: Callable[[str], None]) -> Report:
    report = Report()
    progress("usage records")
    recorded: dict[int | None, tuple[int, int]] = {}
    for user, *sums, count in _rows(
        f"SELECT user_id, {_sum('cost')}, {_sum('shortfall')}, COUNT(*) FROM relay_usagerecord GROUP BY user_id"  # noqa: S608
    ):
        report.records += count
        recorded[user] = _whole(*sums[:2]), _whole(*sums[2:])
    for of, records, *amounts in _rows("SELECT user_id, records, cost, shortfall FROM relay_removedusage"):
        report.removed += records
        cost, shortfall = recorded.get(of or None, (0, 0))
        recorded[of or None] = cost + _figure(amounts[0]), shortfall + _figure(amounts[1])
    progress("reservations")
    held: dict[int, dict[tuple[int | None, int], int]] = defaultdict(dict)
    for user, token, day, high, low, count in _rows(
        f"SELECT user_id, token_id, day, {_sum('amount')}, COUNT(*) FROM relay_reservation "  # noqa: S608
        "GROUP BY user_id, token_id, day"
    ):
        held[user][token, day] = amount = _whole(high, low)
        report.reservations += count
        report.reserved += amount
    progress("entries")
    totals: dict[str, int] = defaultdict(int)
    entries = _rows(
        f"SELECT user_id, token_id, day, kind, debit, credit, {_sum('amount')}, {_sum('held')}, COUNT(*) "  # noqa: S608
        "FROM relay_ledgerentry GROUP BY user_id, token_id, day, kind, debit, credit ORDER BY user_id"
    )
    key = connection.ops.quote_name("key")
    accounts = _rows(
        f"SELECT user_id, token_id, kind, first_day, last_day, {key}, granted, used, reserved "  # noqa: S608
        "FROM relay_ledgeraccount ORDER BY user_id"
    )
    seen: set[int] = set()
    both = heapq.merge(
        ((row[0], 0, row) for row in entries), ((row[0], 1, row) for row in accounts), key=itemgetter(0, 1)
    )
    for user, rows in groupby(both, itemgetter(0)):
        seen.add(user)
        user_totals = _UserTotals()
        for _user, kind, row in rows:  # the entries come first
            if kind == 0:
                _add_entry(report, totals, user_totals, row)
            else:
                _check_account(report, user_totals, row)
        _check_user(report, user, user_totals, held.pop(user, {}), recorded.get(user, (0, 0)))
    for user in held:
        _check_user(report, user, _UserTotals(has_wallet=True), held[user], (0, 0))
    for user, (cost, shortfall) in recorded.items():
        if user is not None and user not in seen:
            _check_user(report, user, _UserTotals(has_wallet=True), {}, (cost, shortfall))
    _compare(report, "all entries", "held", report.reserved, totals["held"])
    report.totals = {side: amount for side, amount in totals.items() if amount}
    return report


def _add_entry(report: Report, totals: dict[str, int], user_totals: _UserTotals, row: Any) -> None:
    user, token, day, kind, debit, credit, *sums, count = row
    amount, held = _whole(*sums[:2]), _whole(*sums[2:])
    report.entries += count
    if kind == EntryKind.USAGE:  # what was not held comes from the wallet; what the house pays for is held no more
        totals["held"] -= held
        totals["wallet"] += held if debit == "house" else held - amount
        totals["house"] -= amount if debit == "house" else 0
    else:
        totals[debit] -= amount
    totals[credit] += amount
    debits, right_credit = _RULES.get(kind, (frozenset(), ""))
    if debit not in debits or credit != right_credit:
        report.differences.append(
            Difference(f"user {user}", f"entries “{kind}” from {debit} to {credit}, which do not exist,", amount, 0)
        )
    user_totals.add(token, day, kind, debit, amount, held)


def _check_account(report: Report, user_totals: _UserTotals, row: Any) -> None:
    _user, token, kind, first, last, key, *figures = row
    granted, used, reserved = map(_figure, figures)
    report.accounts += 1
    mine = [
        sums
        for (of_token, day), sums in user_totals.by_day.items()
        if first <= day <= last and (token is None or token == of_token)
    ]
    _compare(report, key, "used", used, sum(sums.used for sums in mine))
    _compare(report, key, "reserved", reserved, sum(sums.reserved for sums in mine))
    if kind == "wallet":
        user_totals.has_wallet = True
        _compare(report, key, "granted", granted, user_totals.granted)
        if abs(granted) > money.LARGEST:
            what = "granted, which is more than a wallet can hold (see “ledger mend”),"
            report.differences.append(Difference(key, what, granted, user_totals.granted))
        if granted - used < 0:
            report.differences.append(Difference(key, "the balance, which must not be negative,", granted - used, 0))


def _check_user(
    report: Report,
    user: int,
    user_totals: _UserTotals,
    held: dict[tuple[int | None, int], int],
    recorded: tuple[int, int],
) -> None:
    """Compare the figures of a whole user: that there is a wallet, the reservations, and the sums of usage records.

    `held`: nano-USD of reservations by token and day. `recorded`: (cost, shortfall) of all usage records.
    """
    if not user_totals.has_wallet and user_totals.by_day:
        report.differences.append(
            Difference(f"user {user}", "a wallet, which is missing: granted", 0, user_totals.granted)
        )
    for token, day in user_totals.by_day.keys() | held.keys():
        if token is not None:
            should_be = user_totals.by_day[token, day].reserved if (token, day) in user_totals.by_day else 0
            _compare(
                report,
                f"reservations of token {token} on day {day}",
                "what is held",
                held.get((token, day), 0),
                should_be,
            )
    cost, shortfall = recorded
    _compare(report, f"usage records of user {user}", "what was charged", cost - shortfall, user_totals.paid)
    _compare(report, f"usage records of user {user}", "what nothing covered", shortfall, user_totals.shortfall)


def _sum(column: str) -> str:
    """Two columns of which `_whole` makes the sum of a column: in SQLite one that leaves 64 bits is an error."""
    if connection.vendor != "sqlite":
        return f"0, SUM({column})"
    return f"SUM(CAST({column} AS INTEGER) / {_HALF}), SUM(CAST({column} AS INTEGER) % {_HALF})"


def _whole(high: object, low: object) -> int:
    return _figure(high) * _HALF + _figure(low)


def _figure(found: object) -> int:
    """A figure in whole nano-USD. SQLite makes floats of figures that leave 64 bits."""
    if isinstance(found, int):
        return found
    number = Decimal(str(found or 0))
    return int(number) if number.is_finite() else _HALF**2


def _rows(sql: str) -> Iterator[Any]:
    """Yield the rows of a query, read in chunks where the database can do that."""
    with connection.chunked_cursor() as cursor:
        cursor.execute(sql)
        while found := cursor.fetchmany(_CHUNK):
            yield from found


def _compare(report: Report, where: str, what: str, is_now: int, should_be: int) -> None:
    if is_now != should_be:
        report.differences.append(Difference(where, what, is_now, should_be))
