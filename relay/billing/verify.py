"""Proves the books: every figure of every account is computed again from the entries, and compared.

Reads one consistent state of the database while workers go on writing. Nothing is changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from django.db import connection

from accounts.consistent import one_state
from portal.lib import money
from relay.billing.ledger import connection_rows
from relay.models.ledger import EntryKind

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
    """Of one user, token and day."""

    used: int = 0
    reserved: int = 0


def verify(progress: Callable[[str], None] = lambda _: None) -> Report:
    """Compute everything again. Memory grows with users, tokens and days, not with requests."""
    with one_state():
        return _verify(progress)


def _verify(progress: Callable[[str], None]) -> Report:
    report = Report()
    sums: dict[tuple[int, int | None, int], _Sums] = defaultdict(_Sums)
    granted: dict[int, int] = defaultdict(int)
    totals: dict[str, int] = defaultdict(int)
    paid: dict[int, int] = defaultdict(int)
    short: dict[int, int] = defaultdict(int)
    progress("entries")
    query = "SELECT user_id, token_id, day, kind, debit, credit, SUM(amount), SUM(held), COUNT(*) FROM relay_ledgerentry GROUP BY user_id, token_id, day, kind, debit, credit"
    for user, token, day, kind, debit, credit, amount, held, count in connection_rows(query):
        amount, held = int(amount), int(held)
        report.entries += count
        totals[debit] -= amount
        totals[credit] += amount
        debits, right_credit = _RULES.get(kind, (frozenset(), ""))
        if debit not in debits or credit != right_credit:
            report.differences.append(Difference(f"user {user}", f"entries “{kind}” from {debit} to {credit}, which do not exist,", amount, 0))
        of_day = sums[user, token, day]
        if kind in _GRANTS:
            granted[user] += amount
        elif kind == EntryKind.DEDUCT:
            granted[user] -= amount
        elif kind == EntryKind.RESERVE:
            of_day.reserved += amount
        elif kind == EntryKind.RELEASE:
            of_day.reserved -= amount
        elif kind == EntryKind.USAGE:
            of_day.used += amount
            of_day.reserved -= held
            paid[user] += amount
            if debit == "house":
                granted[user] += amount
        elif kind == EntryKind.SHORTFALL:
            short[user] += amount
    progress("reservations")
    held_now: dict[tuple[int, int, int], int] = defaultdict(int)
    for user, token, day, amount, count in connection_rows("SELECT user_id, token_id, day, SUM(amount), COUNT(*) FROM relay_reservation GROUP BY user_id, token_id, day"):
        held_now[user, token, day] = int(amount)
        report.reservations += count
        report.reserved += int(amount)
    for key, found in sums.items():
        if key[1] is not None:
            _compare(report, f"reservations of token {key[1]} on day {key[2]}", "what is held", held_now.get((key[0], key[1], key[2]), 0), found.reserved)
    by_user: dict[int, list[tuple[int | None, int, _Sums]]] = defaultdict(list)
    for (user, token, day), found in sums.items():
        by_user[user].append((token, day, found))
    progress("accounts")
    wallets: set[int] = set()
    for user, token, kind, first, last, key, is_granted, used, reserved in connection_rows(
        f"SELECT user_id, token_id, kind, first_day, last_day, {connection.ops.quote_name('key')}, granted, used, reserved FROM relay_ledgeraccount"  # noqa: S608
    ):
        report.accounts += 1
        mine = [found for of_token, day, found in by_user[user] if first <= day <= last and (token is None or token == of_token)]
        _compare(report, key, "used", used, sum(found.used for found in mine))
        _compare(report, key, "reserved", reserved, sum(found.reserved for found in mine))
        if kind == "wallet":
            wallets.add(user)
            _compare(report, key, "granted", is_granted, granted[user])
            if is_granted - used < 0:
                report.differences.append(Difference(key, "the balance, which must not be negative,", is_granted - used, 0))
    for user in set(by_user) - wallets:
        report.differences.append(Difference(f"user {user}", "a wallet, which is missing: granted", 0, granted[user]))
    progress("usage records")
    for user, cost, shortfall, count in connection_rows("SELECT user_id, SUM(cost), SUM(shortfall), COUNT(*) FROM relay_usagerecord GROUP BY user_id"):
        report.records += count
        if user is not None:
            _compare(report, f"usage records of user {user}", "what was charged", int(cost) - int(shortfall), paid.pop(user, 0))
            _compare(report, f"usage records of user {user}", "what nothing covered", int(shortfall), short.pop(user, 0))
    for user in {*paid, *short}:
        if paid.get(user) or short.get(user):
            report.differences.append(Difference(f"usage records of user {user}", "what was charged", 0, paid.get(user, 0)))
    report.totals = dict(totals)
    return report


def _compare(report: Report, where: str, what: str, is_now: int, should_be: int) -> None:
    if is_now != should_be:
        report.differences.append(Difference(where, what, is_now, should_be))
