"""Reserves money for requests and charges them: writes accounts and the entries that explain their figures.

Only this module and `relay.billing.ledger.movements` change balances (`relay.billing.ledger.backfill` writes those of
demo data, in a portal that has no usage yet). Every figure of an account is the sum of its entries
(`relay.billing.ledger.verify` computes it again), and both are written in one transaction:

    granted   what was put in: top-ups, codes, a starting balance; for quotas and budgets the limit itself
    used      usage entries
    reserved  what workers reserve for running requests

A request is charged to all accounts of its user, its token and its day at once: the wallet, the token's quota, the
budgets of user and token for the day, week and month. One condition (`_SCOPE`) selects them all, so a movement is one
UPDATE.

Locks are taken in one order: the user's wallet, then reservations, then the other accounts. SQLite has one writer at a
time anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import OperationalError, connection, transaction

from portal.lib import money
from portal.services.databases import is_lock_conflict
from relay.billing.ledger.accounts import open_account, open_budget
from relay.billing.ledger.lines import Charge, Charged, Reserved, ReserveOrder, SpendScope
from relay.billing.ledger.sql import EntryValues, LedgerSql
from relay.models.ledger import EntryKind

RESERVATION_SECONDS: Final = 60  # how long a reservation outlives its worker's last heartbeat
_TIGHT_SHARE: Final = 32  # a worker may reserve headroom while that is less than 1/32 of what is free

LARGE: Final = 10**12  # nano-USD of charges in one movement, from which it is worth looking whether they fit
# kind, period, id of the token, limited, granted, used, reserved
AccountRow = tuple[str, str, int | None, bool, int, int, int]
_Tightest = tuple[int, int, str, str, bool]

_SCOPE: Final = "user_id = %s AND (token_id IS NULL OR token_id = %s) AND first_day <= %s AND last_day >= %s"
_CHANGE_RESERVED: Final = f"UPDATE relay_ledgeraccount SET reserved = reserved + %s WHERE {_SCOPE}"  # noqa: S608


# -- requests ----------------------------------------------------------------------------------------------------------


def reserve(db: LedgerSql, order: ReserveOrder, now: float) -> Reserved:
    """Reserve `order.need` nano-USD in every account of the scope, and headroom unless an account is tight.

    When less than that is free, reserves what is free, provided it is at least `order.minimum`.
    """
    return reserve_all(db, [order], now)[0]


def reserve_all(db: LedgerSql, orders: Sequence[ReserveOrder], now: float) -> list[Reserved]:
    """Execute orders for one reservation, one after another, as `reserve`. They name the same budgets."""
    order, amount, found = orders[0], 0, []
    reservation, scope, least = order.reservation, order.scope, _tightest(db, order)
    for one in orders:
        # What is reserved is taken from all accounts of the scope, so that the same one has the least left.
        found.append(decide(one, least and (least[0] - amount, *least[1:])))
        amount += found[-1].granted
    if amount:
        expires = expiry(now)
        grown = db.run(
            "UPDATE relay_reservation SET amount = amount + %s, expires_at = %s WHERE id = %s",
            (amount, expires, reservation),
        )
        if grown.rowcount == 0:
            columns = "id, owner, user_id, token_id, day, amount, expires_at"
            values = (reservation, order.owner, scope.user_id, scope.token_id, scope.day, amount, expires)
            placeholders = ", ".join(["%s"] * len(values))
            db.run(f"INSERT INTO relay_reservation ({columns}) VALUES ({placeholders})", values)  # noqa: S608
        db.run(_CHANGE_RESERVED, (amount, *scope.values))
        db.write([holding_entry(db, now, EntryKind.RESERVE, scope, amount, reservation)])
    return found


def decide(order: ReserveOrder, tightest: _Tightest | None) -> Reserved:
    """Return what an order gets, as `reserve`, where the account with the least left is `tightest`."""
    if tightest is None:  # no account limits spending
        return Reserved(0, money.LARGEST, money.LARGEST, "", "", False)
    free, balance, kind, period, of_token = tightest
    amount = order.need + order.headroom
    tight = free < _TIGHT_SHARE * amount
    amount = order.need if tight else max(amount, min(amount + order.more, free // _TIGHT_SHARE))
    if amount > free:
        amount = free if free >= order.minimum and free > 0 else 0
    return Reserved(amount, free - amount, balance, kind, period, tight, of_token)


def expiry(now: float) -> int:
    """When reservations expire that are made or prolonged now, in seconds since 1970."""
    return int(now) + RESERVATION_SECONDS


def settle(
    db: LedgerSql, reservation: str, scope: SpendScope, charges: Sequence[Charge], careful: bool = False
) -> list[Charged]:
    """Charge finished requests of one scope to a reservation, or to the accounts when `reservation` is empty.

    `careful`: charge each on its own, and only what is free. Otherwise that happens only if the reservation does not
    cover all.
    """
    total = sum(charge.cost for charge in charges)
    covered = not careful and all(is_covered(charge, reservation) for charge in charges)
    if covered and (
        not reservation
        or db.run(
            "UPDATE relay_reservation SET amount = amount - %s WHERE id = %s AND amount >= %s",
            (total, reservation, total),
        ).rowcount
        == 1
    ):
        house = sum(charge.cost for charge in charges if charge.house)
        _spend(db, scope, total, total if reservation else 0, house)
        db.write(
            [
                usage_entry(db, scope, charge, (charge.cost, charge.cost if reservation else 0), reservation)
                for charge in charges
                if charge.cost
            ]
        )
        return [Charged(charge.cost if reservation else 0, 0) for charge in charges]
    return [_settle_one(db, reservation, scope, charge) for charge in charges]


def is_covered(charge: Charge, reservation: str) -> bool:
    """Whether a charge needs nothing but what is reserved for it, or is the house's."""
    return charge.cost <= charge.covered or (charge.house and not reservation)


def _settle_one(db: LedgerSql, reservation: str, scope: SpendScope, charge: Charge) -> Charged:
    row = (
        db.run("SELECT amount FROM relay_reservation WHERE id = %s", (reservation,)).fetchone() if reservation else None
    )
    wallet = db.run(
        "SELECT limited FROM relay_ledgeraccount WHERE user_id = %s AND kind = 'wallet'", (scope.user_id,)
    ).fetchone()
    if wallet is not None and not wallet[0]:  # made unlimited while the request ran
        charge = Charge(charge.request_id, charge.cost, charge.covered, True, charge.at)
    held = min(charge.cost, charge.covered, row[0] if row else 0)
    least = _tightest(db, ReserveOrder("", "", scope, (), 0, 0, 0))
    rest = charge.cost - held
    paid = held + (rest if least is None else max(0, min(rest, least[0])))
    shortfall = charge.cost - paid
    if held:
        db.run("UPDATE relay_reservation SET amount = amount - %s WHERE id = %s", (held, reservation))
    _spend(db, scope, paid, held, paid if charge.house else 0)
    entries = [usage_entry(db, scope, charge, (paid, held), reservation)] if paid else []
    if shortfall:
        entries.append(
            _entry(
                db,
                charge.at,
                scope,
                _Movement(EntryKind.SHORTFALL, "house", "revenue", shortfall, request_id=charge.request_id),
            )
        )
    db.write(entries)
    return Charged(held, shortfall)


def write_off(db: LedgerSql, scope: SpendScope, charge: Charge) -> Charged:
    """Record a charge that the database refuses as a shortfall: the portal bears all of it."""
    db.write(
        [
            _entry(
                db,
                charge.at,
                scope,
                _Movement(EntryKind.SHORTFALL, "house", "revenue", charge.cost, request_id=charge.request_id),
            )
        ]
    )
    return Charged(0, charge.cost)


def release(db: LedgerSql, reservation: str, scope: SpendScope, amount: int | None, now: float) -> int:
    """Release `amount` nano-USD of a reservation, or with None all of it, which ends it.

    Returns how much was released.
    """
    lock = "" if db.sqlite else " FOR UPDATE"
    row = db.run(f"SELECT amount FROM relay_reservation WHERE id = %s{lock}", (reservation,)).fetchone()  # noqa: S608
    if row is None:
        return 0
    released: int = row[0] if amount is None else min(row[0], amount)
    if amount is None:
        db.run("DELETE FROM relay_reservation WHERE id = %s", (reservation,))
    else:
        db.run("UPDATE relay_reservation SET amount = amount - %s WHERE id = %s", (released, reservation))
    if released:
        db.run(_CHANGE_RESERVED, (-released, *scope.values))
        db.write([holding_entry(db, now, EntryKind.RELEASE, scope, released, reservation)])
    return released


def prolong(db: LedgerSql, owner: str, now: float) -> None:
    """Extend the reservations of a worker that is alive.

    One that somebody else has locked is left out: it is prolonged the next time, long before it expires.
    """
    if not db.skips_locked:
        db.run("UPDATE relay_reservation SET expires_at = %s WHERE owner = %s", (expiry(now), owner))
        return
    free = db.run("SELECT id FROM relay_reservation WHERE owner = %s FOR UPDATE SKIP LOCKED", (owner,)).fetchall()
    if free:
        ids = [row[0] for row in free]
        sql = f"UPDATE relay_reservation SET expires_at = %s WHERE id IN ({', '.join(['%s'] * len(ids))})"  # noqa: S608
        db.run(sql, (expiry(now), *ids))


def _tightest(db: LedgerSql, order: ReserveOrder) -> _Tightest | None:
    """Return `tightest` of the accounts of an order's scope. Opens those that are missing."""
    scope = order.scope
    columns = "kind, period, token_id, limited, granted, used, reserved"
    sql = f"SELECT {columns} FROM relay_ledgeraccount WHERE {_SCOPE}"  # noqa: S608
    rows = db.run(sql, scope.values).fetchall()
    if is_missing(rows, order):
        open_account(db, f"wallet:{scope.user_id}", "wallet", scope.user_id)
        db.lock(scope.user_id)
        open_account(db, f"quota:{scope.token_id}", "quota", scope.user_id, scope.token_id, limited=False)
        have = {(row[0], row[1], row[2]) for row in rows}
        for line in order.budgets:
            if ("budget", line.period, line.token_id) in have:
                continue
            owner, value = ("token_id", line.token_id) if line.token_id is not None else ("user_id", scope.user_id)
            budget_exists = f"SELECT 1 FROM relay_budget WHERE {owner} = %s AND period = %s"  # noqa: S608
            if db.run(budget_exists, (value, line.period)).fetchone():  # not lifted meanwhile
                open_budget(db, scope.user_id, line.token_id, line.period, scope.day, line.limit)
        rows = db.run(sql, scope.values).fetchall()
    return tightest(rows)


def is_missing(rows: Sequence[AccountRow], order: ReserveOrder) -> bool:
    """Whether one of the accounts that an order needs is not among those of its scope."""
    have = {(row[0], row[1], row[2]) for row in rows}
    return (
        ("wallet", "", None) not in have
        or ("quota", "", order.scope.token_id) not in have
        or any(("budget", line.period, line.token_id) not in have for line in order.budgets)
    )


def tightest(rows: Sequence[AccountRow]) -> _Tightest | None:
    """Return (free, balance, kind, period, is the token's) of the limited account with the least left.

    None when none is limited.
    """
    found = [(row[4] - row[5] - row[6], row[4] - row[5], row[0], row[1], row[2] is not None) for row in rows if row[3]]
    return min(found) if found else None


def _spend(db: LedgerSql, scope: SpendScope, amount: int, held: int, house: int) -> None:
    if not amount:
        return
    if amount > LARGE:
        _check_room(db, scope, amount)
    sql = f"UPDATE relay_ledgeraccount SET used = used + %s, reserved = reserved - %s WHERE {_SCOPE}"  # noqa: S608
    values: tuple[int, ...] = (amount, held, *scope.values)
    if house:  # the portal puts into an unlimited wallet what the request takes out
        sql = sql.replace(" WHERE", ", granted = granted + CASE WHEN kind = 'wallet' THEN %s ELSE 0 END WHERE", 1)
        values = (amount, held, house, *scope.values)
    db.run(sql, values)


def _check_room(db: LedgerSql, scope: SpendScope, amount: int) -> None:
    """Raises OverflowError if a figure would leave 64 bits, which SQLite rounds and others refuse.

    Smaller amounts cannot get there: what is above LARGEST has room for billions of them.
    """
    sql = f"SELECT MAX(used), MAX(granted) FROM relay_ledgeraccount WHERE {_SCOPE}"  # noqa: S608
    if max(db.run(sql, scope.values).fetchone()) > money.LARGEST - amount:
        raise OverflowError("an account cannot hold so much")


def usage_entry(
    db: LedgerSql, scope: SpendScope, charge: Charge, amounts: tuple[int, int], reservation: str
) -> EntryValues:
    """The entry of a charge. `amounts`: nano-USD that are paid, and how many of them were reserved."""
    amount, held = amounts
    debit = "house" if charge.house else "held" if held else "wallet"
    move = _Movement(EntryKind.USAGE, debit, "revenue", amount, held, charge.request_id, reservation if held else "")
    return _entry(db, charge.at, scope, move)


def holding_entry(
    db: LedgerSql, now: float, kind: EntryKind, scope: SpendScope, amount: int, reservation: str
) -> EntryValues:
    """The entry of an amount that is reserved, or released."""
    sides = ("wallet", "held") if kind == EntryKind.RESERVE else ("held", "wallet")
    return _entry(db, now, scope, _Movement(kind, *sides, amount, reservation=reservation))


@dataclass(frozen=True, slots=True)
class _Movement:
    """A movement of money that becomes an entry."""

    kind: EntryKind
    debit: str  # the side that it is taken from, one of relay.models.ledger.SIDES
    credit: str  # the side that it goes to
    amount: int  # nano-USD
    held: int = 0  # nano-USD of the amount that were reserved
    request_id: str = ""
    reservation: str = ""


def _entry(db: LedgerSql, at: float, scope: SpendScope, move: _Movement) -> EntryValues:
    accounts = (scope.user_id, scope.token_id, scope.day)
    return (
        db.at(at),
        str(move.kind),
        move.debit,
        move.credit,
        move.amount,
        move.held,
        *accounts,
        move.request_id,
        move.reservation,
        None,
        "",
    )


# -- expired reservations ----------------------------------------------------------------------------------------------


def release_expired(now: float, is_dead: Callable[[str], bool] | None = None) -> int:
    """Release reservations that have expired, or whose worker is known to be gone. Returns how many.

    `is_dead(owner)` tells whether a worker of this host has ended; without it only expired reservations are released.
    """
    rows = _select("SELECT id, user_id, token_id, day, owner, expires_at FROM relay_reservation")
    count = 0
    for reservation, user_id, token_id, day, owner, expires in rows:
        if expires < now or (is_dead is not None and is_dead(owner)):
            try:
                with transaction.atomic():
                    count += _release_expired(reservation, SpendScope(user_id, token_id, day), expires, now)
            except OperationalError as error:
                if not is_lock_conflict(error):
                    raise  # else it is left to the next round: the others do not wait for it
    return count


def _release_expired(reservation: str, scope: SpendScope, expires: int, now: float) -> bool:
    db = LedgerSql()
    db.bound_locks()
    if not db.lock_free(scope.user_id):
        return False
    current = db.run("SELECT expires_at FROM relay_reservation WHERE id = %s", (reservation,)).fetchone()
    if current is None or current[0] != expires:
        return False  # ended or prolonged meanwhile
    release(db, reservation, scope, None, now)
    return True


def _select(sql: str, values: Sequence[Any] = ()) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())
