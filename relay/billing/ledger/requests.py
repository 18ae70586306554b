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

import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final

from django.conf import settings
from django.db import connection, transaction
from django.db.models.constants import OnConflict

from accounts.models import Change, User
from accounts.models.change import announce
from portal.lib import money
from portal.lib.days import Days, bounds
from relay.billing.ledger.lines import BudgetLine, Charge, Charged, Reserved, Scope
from relay.billing.ledger.sql import Books, Entry
from relay.models import Budget, LedgerAccount, RedemptionCode, Token
from relay.models.ledger import EntryKind

LEASE_SECONDS: Final = 60  # how long a reservation outlives its worker's last sign of life
_COMFORT: Final = 32  # a worker may hold back more than it needs now while that is less than 1/32 of what is left

_SCOPE: Final = "user_id = %s AND (token_id IS NULL OR token_id = %s) AND first_day <= %s AND last_day >= %s"


class NotEnough(Exception):
    """A deduction takes more than is free. `free` in nano-USD."""

    def __init__(self, free: int) -> None:
        super().__init__(f"Only {money.show(max(free, 0))} can be taken; the rest is spent or reserved by running requests.")
        self.free = free


class NotRedeemable(Exception):
    """A code cannot be redeemed. The message says why."""


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


def open_account(
    books: Books, key: str, kind: str, user_id: int, token_id: int | None = None, *, limited: bool = True, granted: int = 0, used: int = 0, reserved: int = 0,
    period: str = "", first_day: int = 0, last_day: int = LedgerAccount.FOR_EVER,
) -> bool:  # fmt: skip
    """Make an account that is not there yet. True when it was made."""
    if books.run(f"SELECT 1 FROM relay_ledgeraccount WHERE {books.key} = %s", (key,)).fetchone():  # noqa: S608
        return False
    columns = f"{books.key}, kind, user_id, token_id, period, first_day, last_day, limited, granted, used, reserved"
    insert = connection.ops.insert_statement(on_conflict=OnConflict.IGNORE)
    suffix = connection.ops.on_conflict_suffix_sql([], OnConflict.IGNORE, [], [])
    values = (key, kind, user_id, token_id, period, first_day, last_day, limited, granted, used, reserved)
    sql = f"{insert} relay_ledgeraccount ({columns}) VALUES ({', '.join(['%s'] * len(values))}) {suffix}"
    return books.run(sql, values).rowcount == 1


def _open_budget(books: Books, user_id: int, token_id: int | None, period: str, day: int, limit: int) -> None:
    """The account of a budget for the period of a day. What was spent and reserved in it before counts."""
    first, last = bounds(period, day)
    whose, values = ("AND token_id = %s", (user_id, first, last, token_id)) if token_id is not None else ("", (user_id, first, last))
    used = books.run(f"SELECT COALESCE(SUM(amount), 0) FROM relay_ledgerentry WHERE kind = 'usage' AND user_id = %s AND day BETWEEN %s AND %s {whose}", values).fetchone()  # noqa: S608
    reserved = books.run(f"SELECT COALESCE(SUM(amount), 0) FROM relay_reservation WHERE user_id = %s AND day BETWEEN %s AND %s {whose}", values).fetchone()  # noqa: S608
    open_account(
        books, budget_key(user_id, token_id, period, first), "budget", user_id, token_id, granted=limit, used=int(used[0]), reserved=int(reserved[0]),
        period=period, first_day=first, last_day=last,
    )  # fmt: skip


def budget_key(user_id: int, token_id: int | None, period: str, first_day: int) -> str:
    whose = f"token:{token_id}" if token_id is not None else f"user:{user_id}"
    return f"budget:{whose}:{period}:{first_day}"


# -- what people do ----------------------------------------------------------------------------------------------------
# Each is one transaction, or part of the caller's, and is announced to the workers where they keep something of it in memory.


def today() -> int:
    return Days(settings.TIME_ZONE).of(time.time())


def open_wallet(user: User) -> None:
    """The wallet of a new user: with the starting balance of the settings, or unlimited. Superusers' are unlimited."""
    starting: str = settings.CONFIG.new_user_balance
    unlimited = user.is_superuser or starting == "unlimited"
    with transaction.atomic():
        books = Books()
        if open_account(books, f"wallet:{user.pk}", "wallet", user.pk, limited=not unlimited) and not unlimited:
            amount = money.nano(Decimal(starting))
            if amount:
                _grant(books, user.pk, amount, EntryKind.STARTING, "house", None, "Starting balance")


def open_quota(token: Token) -> None:
    """The quota of a new token: unlimited until somebody sets it."""
    with transaction.atomic():
        books = Books()
        open_account(books, f"wallet:{token.user_id}", "wallet", token.user_id)
        open_account(books, f"quota:{token.pk}", "quota", token.user_id, token.pk, limited=False)


def top_up(user: User, amount: int, *, actor: Any, reason: str) -> None:
    """Add nano-USD to a wallet."""
    if amount <= 0:
        raise ValueError("a top-up is more than nothing")
    with transaction.atomic():
        books = Books()
        open_account(books, f"wallet:{user.pk}", "wallet", user.pk)
        _grant(books, user.pk, amount, EntryKind.TOP_UP, "funding", actor, reason)


def deduct(user: User, amount: int, *, actor: Any, reason: str) -> None:
    """Take nano-USD out of a wallet. Raises NotEnough."""
    if amount <= 0:
        raise ValueError("a deduction is more than nothing")
    with transaction.atomic():
        books = Books()
        taken = books.run(
            "UPDATE relay_ledgeraccount SET granted = granted - %s WHERE user_id = %s AND kind = 'wallet' AND granted - used - reserved >= %s", (amount, user.pk, amount)
        )
        if taken.rowcount != 1:
            wallet = LedgerAccount.objects.filter(user=user, kind="wallet").first()
            raise NotEnough(wallet.free if wallet else 0)
        books.write([_human(books, user.pk, EntryKind.DEDUCT, "wallet", "funding", amount, actor, reason)])


def redeem(code: RedemptionCode, user: User) -> int:
    """Credit a code to a wallet, once. Returns nano-USD. Raises NotRedeemable."""
    with transaction.atomic():
        books = Books()
        state = code.state()
        if state == "open":
            now = time.time()
            open_account(books, f"wallet:{user.pk}", "wallet", user.pk)
            books.lock(user.pk)
            won = books.run(
                "UPDATE relay_redemptioncode SET redeemed_at = %s, redeemed_by_id = %s WHERE id = %s AND redeemed_at IS NULL AND enabled = %s",
                (books.at(now), user.pk, code.pk, True),
            )
            if won.rowcount == 1:
                _grant(books, user.pk, code.batch.amount, EntryKind.REDEEM, "codes", user, f"Code {code.hint}")
                return code.batch.amount
            state = "redeemed"
        raise NotRedeemable({"redeemed": "This code has been redeemed already.", "expired": "This code has expired.", "disabled": "This code is no longer valid."}[state])


def set_unlimited(user: User, unlimited: bool) -> None:
    """Whether a user's balance limits what the user may spend."""
    with transaction.atomic():
        books = Books()
        open_account(books, f"wallet:{user.pk}", "wallet", user.pk)
        books.run("UPDATE relay_ledgeraccount SET limited = %s WHERE user_id = %s AND kind = 'wallet'", (not unlimited, user.pk))
        announce(Change.USER, [str(user.pk)])


def set_quota(token: Token, quota: int | None) -> None:
    """The most that a token may spend in all, in nano-USD; None: no limit of its own."""
    with transaction.atomic():
        books = Books()
        open_quota(token)
        books.run("UPDATE relay_ledgeraccount SET limited = %s, granted = %s WHERE token_id = %s AND kind = 'quota'", (quota is not None, quota or 0, token.pk))
        announce(Change.TOKEN, [token.digest])


def set_budget(budget: Budget) -> None:
    """Put a new or changed budget in force for the period that runs."""
    books, day = Books(), today()
    user_id, limit = budget.owner_id, money.nano(budget.limit)
    open_account(books, f"wallet:{user_id}", "wallet", user_id)
    books.lock(user_id)
    _open_budget(books, user_id, budget.token_id, budget.period, day, limit)
    key = budget_key(user_id, budget.token_id, budget.period, bounds(budget.period, day)[0])
    books.run(f"UPDATE relay_ledgeraccount SET granted = %s, limited = %s WHERE {books.key} = %s", (limit, True, key))  # noqa: S608


def lift_budget(budget: Budget) -> None:
    """A budget is taken away: its account limits nothing any more, and keeps its figures."""
    books = Books()
    books.lock(budget.owner_id)
    whose, value = ("token_id = %s", budget.token_id) if budget.token_id is not None else ("token_id IS NULL AND user_id = %s", budget.user_id)
    books.run(f"UPDATE relay_ledgeraccount SET limited = %s WHERE kind = 'budget' AND period = %s AND {whose}", (False, budget.period, value))  # noqa: S608


def _grant(books: Books, user_id: int, amount: int, kind: str, source: str, actor: Any, reason: str) -> None:
    books.run("UPDATE relay_ledgeraccount SET granted = granted + %s WHERE user_id = %s AND kind = 'wallet'", (amount, user_id))
    books.write([_human(books, user_id, kind, source, "wallet", amount, actor, reason)])


def _human(books: Books, user_id: int, kind: str, debit: str, credit: str, amount: int, actor: Any, reason: str) -> Entry:
    return (books.at(time.time()), str(kind), debit, credit, amount, 0, user_id, None, today(), "", "", getattr(actor, "pk", None), reason[:200])


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
