"""Opens the ledger's accounts: wallets, quotas and budgets, each when it is first needed."""

from __future__ import annotations

from django.db import connection

from portal.lib.days import bounds
from relay.billing.ledger.sql import LedgerSql
from relay.models import LedgerAccount


def open_account(
    db: LedgerSql,
    key: str,
    kind: str,
    user_id: int,
    token_id: int | None = None,
    *,
    limited: bool = True,
    granted: int = 0,
    used: int = 0,
    reserved: int = 0,
    period: str = "",
    first_day: int = 0,
    last_day: int = LedgerAccount.FOR_EVER,
) -> bool:
    """Create an account unless it exists. Returns whether it was created. Amounts in nano-USD, days as ordinals."""
    if db.run(f"SELECT 1 FROM relay_ledgeraccount WHERE {db.key} = %s", (key,)).fetchone():  # noqa: S608
        return False
    columns = f"{db.key}, kind, user_id, token_id, period, first_day, last_day, limited, granted, used, reserved"
    # The number of rows says whether it was made, which that of MySQL's ON DUPLICATE KEY would not.
    mysql = connection.vendor == "mysql"
    insert, suffix = ("INSERT IGNORE INTO", "") if mysql else ("INSERT INTO", "ON CONFLICT DO NOTHING")
    values = (key, kind, user_id, token_id, period, first_day, last_day, limited, granted, used, reserved)
    sql = f"{insert} relay_ledgeraccount ({columns}) VALUES ({', '.join(['%s'] * len(values))}) {suffix}"
    return db.run(sql, values).rowcount == 1


def open_budget(db: LedgerSql, user_id: int, token_id: int | None, period: str, day: int, limit: int) -> None:
    """Open the account of a budget for the period of a day, with what has been spent and reserved in it so far."""
    first, last = bounds(period, day)
    condition, values = (
        ("AND token_id = %s", (user_id, first, last, token_id))
        if token_id is not None
        else ("", (user_id, first, last))
    )
    scope = f"user_id = %s AND day BETWEEN %s AND %s {condition}"
    total = "SELECT COALESCE(SUM(amount), 0) FROM"
    used = db.run(f"{total} relay_ledgerentry WHERE kind = 'usage' AND {scope}", values).fetchone()
    reserved = db.run(f"{total} relay_reservation WHERE {scope}", values).fetchone()
    open_account(
        db,
        budget_key(user_id, token_id, period, first),
        "budget",
        user_id,
        token_id,
        granted=limit,
        used=int(used[0]),
        reserved=int(reserved[0]),
        period=period,
        first_day=first,
        last_day=last,
    )


def budget_key(user_id: int, token_id: int | None, period: str, first_day: int) -> str:
    """Return the key of a budget's account for the period that begins on `first_day`."""
    owner = f"token:{token_id}" if token_id is not None else f"user:{user_id}"
    return f"budget:{owner}:{period}:{first_day}"
