"""Proves the books: every figure of every account is computed again from the entries, and compared.

Reads one consistent state of the database while workers go on writing. Nothing is changed.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from django.db import connection

from accounts.transactions import one_state
from portal.lib import money
from relay.models.ledger import EntryKind

_CHUNK: Final = 2000
# kind: (debits that it may have, credit)
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
    """Something that does not add up. Amounts in nano-USD."""

    where: str
    what: str
    is_now: int
    should_be: int

    def __str__(self) -> str:
        return f"{self.where}: {self.what} is {money.plain(self.is_now)} USD, the entries make it {money.plain(self.should_be)} USD"


@dataclass(slots=True)
class Report:
    """`totals`: nano-USD by house account, seen from the portal: what came in is positive."""

    accounts: int = 0
    entries: int = 0
    records: int = 0
    reservations: int = 0
    reserved: int = 0
    differences: list[Difference] = field(default_factory=list)
    totals: dict[str, int] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        return not self.differences


@dataclass(slots=True)
class _Sums:
    """Of one token and day."""

    used: int = 0
    reserved: int = 0


@dataclass(slots=True)
class _Books:
    """What the entries of one user make of the user's figures."""

    of_day: dict[tuple[int | None, int], _Sums] = field(default_factory=lambda: defaultdict(_Sums))
    granted: int = 0
    paid: int = 0
    short: int = 0
    wallet: bool = False

    def enter(self, token: int | None, day: int, kind: str, debit: str, amount: int, held: int) -> None:
        sums = self.of_day[token, day]
        if kind in _GRANTS:
            self.granted += amount
        elif kind == EntryKind.DEDUCT:
            self.granted -= amount
        elif kind == EntryKind.RESERVE:
            sums.reserved += amount
        elif kind == EntryKind.RELEASE:
            sums.reserved -= amount
        elif kind == EntryKind.USAGE:
            sums.used += amount
            sums.reserved -= held
            self.paid += amount
            if debit == "house":
                self.granted += amount
        elif kind == EntryKind.SHORTFALL:
            self.short += amount


def verify(progress: Callable[[str], None] = lambda _: None) -> Report:
    """Compute everything again, one user after the other: memory grows with what one user has, and with the number of users."""
    with _on_disk(), one_state():
        return _verify(progress)


@contextmanager
def _on_disk() -> Iterator[None]:
    """What SQLite sorts goes to a file, not into memory as for requests: 0.5 GB with five million entries."""
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
    told: dict[int | None, tuple[int, int]] = {}
    for user, cost, shortfall, count in _rows("SELECT user_id, SUM(cost), SUM(shortfall), COUNT(*) FROM relay_usagerecord GROUP BY user_id"):
        report.records += count
        told[user] = int(cost), int(shortfall)
    progress("reservations")
    held: dict[int, dict[tuple[int | None, int], int]] = defaultdict(dict)
    for user, token, day, amount, count in _rows("SELECT user_id, token_id, day, SUM(amount), COUNT(*) FROM relay_reservation GROUP BY user_id, token_id, day"):
        held[user][token, day] = int(amount)
        report.reservations += count
        report.reserved += int(amount)
    progress("entries")
    totals: dict[str, int] = defaultdict(int)
    entries = _rows(
        "SELECT user_id, token_id, day, kind, debit, credit, SUM(amount), SUM(held), COUNT(*) FROM relay_ledgerentry "
        "GROUP BY user_id, token_id, day, kind, debit, credit ORDER BY user_id"
    )
    accounts = _rows(
        f"SELECT user_id, token_id, kind, first_day, last_day, {connection.ops.quote_name('key')}, granted, used, reserved FROM relay_ledgeraccount ORDER BY user_id"  # noqa: S608
    )
    seen: set[int] = set()
    both = heapq.merge(((row[0], 0, row) for row in entries), ((row[0], 1, row) for row in accounts), key=itemgetter(0, 1))
    for user, rows in groupby(both, itemgetter(0)):
        seen.add(user)
        db = _Books()
        for _user, kind, row in rows:  # the entries come first
            if kind == 0:
                _enter(report, totals, db, row)
            else:
                _account(report, db, row)
        _user_of(report, user, db, held.pop(user, {}), told.get(user, (0, 0)))
    for user in held:
        _user_of(report, user, _Books(wallet=True), held[user], (0, 0))
    for user, (cost, shortfall) in told.items():
        if user is not None and user not in seen:
            _user_of(report, user, _Books(wallet=True), {}, (cost, shortfall))
    report.totals = dict(totals)
    return report


def _enter(report: Report, totals: dict[str, int], db: _Books, row: Any) -> None:
    user, token, day, kind, debit, credit, amount, held, count = row
    amount = int(amount)
    report.entries += count
    totals[debit] -= amount
    totals[credit] += amount
    debits, right_credit = _RULES.get(kind, (frozenset(), ""))
    if debit not in debits or credit != right_credit:
        report.differences.append(Difference(f"user {user}", f"entries “{kind}” from {debit} to {credit}, which do not exist,", amount, 0))
    db.enter(token, day, kind, debit, amount, int(held))


def _account(report: Report, db: _Books, row: Any) -> None:
    _user, token, kind, first, last, key, granted, used, reserved = row
    report.accounts += 1
    mine = [sums for (of_token, day), sums in db.of_day.items() if first <= day <= last and (token is None or token == of_token)]
    _compare(report, key, "used", used, sum(sums.used for sums in mine))
    _compare(report, key, "reserved", reserved, sum(sums.reserved for sums in mine))
    if kind == "wallet":
        db.wallet = True
        _compare(report, key, "granted", granted, db.granted)
        if granted - used < 0:
            report.differences.append(Difference(key, "the balance, which must not be negative,", granted - used, 0))


def _user_of(report: Report, user: int, db: _Books, held: dict[tuple[int | None, int], int], told: tuple[int, int]) -> None:
    """What concerns a user as a whole: reservations, the wallet's being there, and what usage records tell."""
    if not db.wallet and db.of_day:
        report.differences.append(Difference(f"user {user}", "a wallet, which is missing: granted", 0, db.granted))
    for token, day in db.of_day.keys() | held.keys():
        if token is not None:
            should_be = db.of_day[token, day].reserved if (token, day) in db.of_day else 0
            _compare(report, f"reservations of token {token} on day {day}", "what is held", held.get((token, day), 0), should_be)
    cost, shortfall = told
    _compare(report, f"usage records of user {user}", "what was charged", cost - shortfall, db.paid)
    _compare(report, f"usage records of user {user}", "what nothing covered", shortfall, db.short)


def _rows(sql: str) -> Iterator[Any]:
    """Rows as the database hands them out, not all at once where it can do without."""
    with connection.chunked_cursor() as cursor:
        cursor.execute(sql)
        while found := cursor.fetchmany(_CHUNK):
            yield from found


def _compare(report: Report, where: str, what: str, is_now: int, should_be: int) -> None:
    if is_now != should_be:
        report.differences.append(Difference(where, what, is_now, should_be))
