"""The only place that writes balances: wallets, quotas, budgets, and the entries that explain them.

(`relay.billing.ledger.backfill` writes both for made-up use, in a portal that has none yet.)

Every figure of an account is the sum of its entries (`relay.billing.ledger.verify` computes them again), and both are written in one transaction:

    granted   what was put in: top-ups, codes, a starting balance; for quotas and budgets the limit itself
    used      usage entries
    reserved  what workers hold back for running requests

A request is paid from, and counted against, all accounts of its user, its token and its day at once: the wallet, the token's quota, the
budgets of user and token for the day, week and month. One condition (`_SCOPE`) names them all, so a movement is one UPDATE.

Locks are taken in one order: the user's wallet, then reservations, then the other accounts. SQLite has one writer at a time anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from django.db import connection, transaction

from portal.lib import money
from relay.billing.ledger.accounts import _open_budget, open_account
from relay.billing.ledger.lines import BudgetLine, Charge, Charged, Reserved, Scope
from relay.billing.ledger.sql import Books, Entry
from relay.models.ledger import EntryKind

LEASE_SECONDS: Final = 60  # how long a reservation outlives its worker's last sign of life
_COMFORT: Final = 32  # a worker may hold back more than it needs now while that is less than 1/32 of what is left

_SCOPE: Final = "user_id = %s AND (token_id IS NULL OR token_id = %s) AND first_day <= %s AND last_day >= %s"


# -- what workers do ---------------------------------------------------------------------------------------------------


def reserve(books: Books, hold: str, owner: str, scope: Scope, budgets: Sequence[BudgetLine], need: int, wish: int, minimum: int, now: float) -> Reserved:
    """Hold back `need` nano-USD in every account of the scope, `wish` more where there is plenty, or what there is from `minimum` up."""
    tightest = _tightest(books, scope, budgets)
    if tightest is None:  # nothing is limited any more
        return Reserved(0, money.LARGEST, money.LARGEST, "", "", False)
    free, balance, kind, period = tightest
    lean = free < _COMFORT * (need + wish)
    amount = need if lean else need + wish
    if amount > free:
        amount = free if free >= minimum and free > 0 else 0
    if amount:
        expires = int(now) + LEASE_SECONDS
        grown = books.run("UPDATE relay_reservation SET amount = amount + %s, expires_at = %s WHERE id = %s", (amount, expires, hold))
        if grown.rowcount == 0:
            columns = "id, owner, user_id, token_id, day, amount, expires_at"
            values = (hold, owner, scope.user_id, scope.token_id, scope.day, amount, expires)
            books.run(f"INSERT INTO relay_reservation ({columns}) VALUES (%s, %s, %s, %s, %s, %s, %s)", values)  # noqa: S608
        books.run(f"UPDATE relay_ledgeraccount SET reserved = reserved + %s WHERE {_SCOPE}", (amount, *scope.values))  # noqa: S608
        books.write([_entry(books, now, EntryKind.RESERVE, "wallet", "held", amount, scope, reservation=hold)])
    return Reserved(amount, free - amount, balance, kind, period, lean)


def settle(books: Books, hold: str, scope: Scope, charges: Sequence[Charge], careful: bool = False) -> list[Charged]:
    """Charge finished requests of one scope. `careful` takes each on its own and only what is there."""
    total = sum(charge.cost for charge in charges)
    covered = not careful and all(charge.cost <= charge.covered or (charge.house and not hold) for charge in charges)
    if covered and (not hold or books.run("UPDATE relay_reservation SET amount = amount - %s WHERE id = %s AND amount >= %s", (total, hold, total)).rowcount == 1):
        house = sum(charge.cost for charge in charges if charge.house)
        _spend(books, scope, total, total if hold else 0, house)
        books.write([_usage(books, scope, charge, charge.cost, charge.cost if hold else 0, hold) for charge in charges if charge.cost])
        return [Charged(charge.cost if hold else 0, 0) for charge in charges]
    return [_settle_one(books, hold, scope, charge) for charge in charges]


def _settle_one(books: Books, hold: str, scope: Scope, charge: Charge) -> Charged:
    row = books.run("SELECT amount FROM relay_reservation WHERE id = %s", (hold,)).fetchone() if hold else None
    wallet = books.run("SELECT limited FROM relay_ledgeraccount WHERE user_id = %s AND kind = 'wallet'", (scope.user_id,)).fetchone()
    if wallet is not None and not wallet[0]:  # made unlimited while the request ran
        charge = Charge(charge.request_id, charge.cost, charge.covered, True, charge.at)
    held = min(charge.cost, charge.covered, row[0] if row else 0)
    tightest = _tightest(books, scope, ())
    rest = charge.cost - held
    paid = held + (rest if tightest is None else max(0, min(rest, tightest[0])))
    shortfall = charge.cost - paid
    if held:
        books.run("UPDATE relay_reservation SET amount = amount - %s WHERE id = %s", (held, hold))
    _spend(books, scope, paid, held, paid if charge.house else 0)
    entries = [_usage(books, scope, charge, paid, held, hold)] if paid else []
    if shortfall:
        entries.append(_entry(books, charge.at, EntryKind.SHORTFALL, "house", "revenue", shortfall, scope, request_id=charge.request_id))
    books.write(entries)
    return Charged(held, shortfall)


def write_off(books: Books, scope: Scope, charge: Charge) -> Charged:
    """The last resort for a charge that the database refuses: the portal bears all of it."""
    books.write([_entry(books, charge.at, EntryKind.SHORTFALL, "house", "revenue", charge.cost, scope, request_id=charge.request_id)])
    return Charged(0, charge.cost)


def release(books: Books, hold: str, scope: Scope, amount: int | None, now: float) -> int:
    """Give back a part of a reservation, or (None) all that is left of it, which ends it. Returns how much."""
    row = books.run(f"SELECT amount FROM relay_reservation WHERE id = %s{'' if books.sqlite else ' FOR UPDATE'}", (hold,)).fetchone()  # noqa: S608
    if row is None:
        return 0
    back: int = row[0] if amount is None else min(row[0], amount)
    if amount is None:
        books.run("DELETE FROM relay_reservation WHERE id = %s", (hold,))
    else:
        books.run("UPDATE relay_reservation SET amount = amount - %s WHERE id = %s", (back, hold))
    if back:
        books.run(f"UPDATE relay_ledgeraccount SET reserved = reserved - %s WHERE {_SCOPE}", (back, *scope.values))  # noqa: S608
        books.write([_entry(books, now, EntryKind.RELEASE, "held", "wallet", back, scope, reservation=hold)])
    return back


def prolong(books: Books, owner: str, now: float) -> None:
    """A worker's sign of life: its reservations stay."""
    books.run("UPDATE relay_reservation SET expires_at = %s WHERE owner = %s", (int(now) + LEASE_SECONDS, owner))


def _tightest(books: Books, scope: Scope, budgets: Sequence[BudgetLine]) -> tuple[int, int, str, str] | None:
    """(free, balance, kind, period) of the limited account with the least left, None when none is limited. Makes accounts that are missing."""
    sql = f"SELECT kind, period, token_id, limited, granted, used, reserved FROM relay_ledgeraccount WHERE {_SCOPE}"  # noqa: S608
    rows = books.run(sql, scope.values).fetchall()
    have = {(row[0], row[1], row[2]) for row in rows}
    wanted = {("budget", line.period, line.token_id): line.limit for line in budgets}
    missing = [key for key in wanted if key not in have]
    if ("wallet", "", None) not in have or ("quota", "", scope.token_id) not in have or missing:
        open_account(books, f"wallet:{scope.user_id}", "wallet", scope.user_id)
        books.lock(scope.user_id)
        open_account(books, f"quota:{scope.token_id}", "quota", scope.user_id, scope.token_id, limited=False)
        for _, period, token_id in missing:
            owner, value = ("token_id", token_id) if token_id is not None else ("user_id", scope.user_id)
            if books.run(f"SELECT 1 FROM relay_budget WHERE {owner} = %s AND period = %s", (value, period)).fetchone():  # noqa: S608  # not lifted meanwhile
                _open_budget(books, scope.user_id, token_id, period, scope.day, wanted["budget", period, token_id])
        rows = books.run(sql, scope.values).fetchall()
    found = [(row[4] - row[5] - row[6], row[4] - row[5], row[0], row[1]) for row in rows if row[3]]
    return min(found) if found else None


def _spend(books: Books, scope: Scope, amount: int, held: int, house: int) -> None:
    if not amount:
        return
    sql = f"UPDATE relay_ledgeraccount SET used = used + %s, reserved = reserved - %s WHERE {_SCOPE}"  # noqa: S608
    values: tuple[int, ...] = (amount, held, *scope.values)
    if house:  # what the portal pays for an unlimited wallet goes in and out at once
        sql = sql.replace(" WHERE", ", granted = granted + CASE WHEN kind = 'wallet' THEN %s ELSE 0 END WHERE", 1)
        values = (amount, held, house, *scope.values)
    books.run(sql, values)


def _usage(books: Books, scope: Scope, charge: Charge, amount: int, held: int, hold: str) -> Entry:
    debit = "house" if charge.house else "held" if held else "wallet"
    return _entry(books, charge.at, EntryKind.USAGE, debit, "revenue", amount, scope, held, charge.request_id, hold if held else "")


def _entry(books: Books, at: float, kind: str, debit: str, credit: str, amount: int, scope: Scope, held: int = 0, request_id: str = "", reservation: str = "") -> Entry:
    return (books.at(at), str(kind), debit, credit, amount, held, scope.user_id, scope.token_id, scope.day, request_id, reservation, None, "")


# -- accounts ----------------------------------------------------------------------------------------------------------


# -- what people do ----------------------------------------------------------------------------------------------------
# Each is one transaction, or part of the caller's, and is announced to the workers where they keep something of it in memory.


# -- reservations that nobody looks after ------------------------------------------------------------------------------


def sweep(now: float, is_dead: Callable[[str], bool] | None = None) -> int:
    """Give back what workers held that are gone: whose lease has run out, or of whom `is_dead(owner)` is sure. Returns how many."""
    rows = connection_rows("SELECT id, user_id, token_id, day, owner, expires_at FROM relay_reservation")
    count = 0
    for hold, user_id, token_id, day, owner, expires in rows:
        if expires < now or (is_dead is not None and is_dead(owner)):
            with transaction.atomic():
                books = Books()
                books.lock(user_id)
                current = books.run("SELECT expires_at FROM relay_reservation WHERE id = %s", (hold,)).fetchone()
                if current is None or current[0] != expires:
                    continue  # ended or prolonged meanwhile
                release(books, hold, Scope(user_id, token_id, day), None, now)
                count += 1
    return count


def connection_rows(sql: str, values: Sequence[Any] = ()) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())
