"""Movements of money that people and settings cause: top-ups, deductions, codes, quotas, budgets."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import transaction

from accounts.models import Change, User
from accounts.models.change import announce
from portal.lib import money
from portal.lib.days import Days, bounds
from relay.billing.ledger.accounts import _open_budget, budget_key, open_account
from relay.billing.ledger.sql import EntryValues, LedgerSql
from relay.models import Budget, LedgerAccount, RedemptionCode, Token
from relay.models.ledger import EntryKind


class NotEnough(Exception):
    """A deduction takes more than is free. `free` in nano-USD."""

    def __init__(self, free: int) -> None:
        super().__init__(f"Only {money.show(max(free, 0))} can be taken; the rest is spent or reserved by running requests.")
        self.free = free


class NotRedeemable(Exception):
    """A code cannot be redeemed. The message says why."""


def today() -> int:
    return Days(settings.TIME_ZONE).of(time.time())


def open_wallet(user: User) -> None:
    """The wallet of a new user: with the starting balance of the settings, or unlimited. Superusers' are unlimited."""
    starting: str = settings.CONFIG.new_user_balance
    unlimited = user.is_superuser or starting == "unlimited"
    with transaction.atomic():
        db = LedgerSql()
        if open_account(db, f"wallet:{user.pk}", "wallet", user.pk, limited=not unlimited) and not unlimited:
            amount = money.nano(Decimal(starting))
            if amount:
                _grant(db, user.pk, amount, EntryKind.STARTING, "house", None, "Starting balance")


def open_quota(token: Token) -> None:
    """The quota of a new token: unlimited until somebody sets it."""
    with transaction.atomic():
        db = LedgerSql()
        open_account(db, f"wallet:{token.user_id}", "wallet", token.user_id)
        open_account(db, f"quota:{token.pk}", "quota", token.user_id, token.pk, limited=False)


def top_up(user: User, amount: int, *, actor: Any, reason: str) -> None:
    """Add nano-USD to a wallet."""
    if amount <= 0:
        raise ValueError("a top-up is more than nothing")
    with transaction.atomic():
        db = LedgerSql()
        open_account(db, f"wallet:{user.pk}", "wallet", user.pk)
        _grant(db, user.pk, amount, EntryKind.TOP_UP, "funding", actor, reason)


def deduct(user: User, amount: int, *, actor: Any, reason: str) -> None:
    """Take nano-USD out of a wallet. Raises NotEnough."""
    if amount <= 0:
        raise ValueError("a deduction is more than nothing")
    with transaction.atomic():
        db = LedgerSql()
        taken = db.run(
            "UPDATE relay_ledgeraccount SET granted = granted - %s WHERE user_id = %s AND kind = 'wallet' AND granted - used - reserved >= %s", (amount, user.pk, amount)
        )
        if taken.rowcount != 1:
            wallet = LedgerAccount.objects.filter(user=user, kind="wallet").first()
            raise NotEnough(wallet.free if wallet else 0)
        db.write([_human(db, user.pk, EntryKind.DEDUCT, "wallet", "funding", amount, actor, reason)])


def redeem(code: RedemptionCode, user: User) -> int:
    """Credit a code to a wallet, once. Returns nano-USD. Raises NotRedeemable."""
    with transaction.atomic():
        db = LedgerSql()
        state = code.state()
        if state == "open":
            now = time.time()
            open_account(db, f"wallet:{user.pk}", "wallet", user.pk)
            db.lock(user.pk)
            won = db.run(
                "UPDATE relay_redemptioncode SET redeemed_at = %s, redeemed_by_id = %s WHERE id = %s AND redeemed_at IS NULL AND enabled = %s",
                (db.at(now), user.pk, code.pk, True),
            )
            if won.rowcount == 1:
                _grant(db, user.pk, code.batch.amount, EntryKind.REDEEM, "codes", user, f"Code {code.hint}")
                return code.batch.amount
            state = "redeemed"
        raise NotRedeemable({"redeemed": "This code has been redeemed already.", "expired": "This code has expired.", "disabled": "This code is no longer valid."}[state])


def set_unlimited(user: User, unlimited: bool) -> None:
    """Whether a user's balance limits what the user may spend."""
    with transaction.atomic():
        db = LedgerSql()
        open_account(db, f"wallet:{user.pk}", "wallet", user.pk)
        db.run("UPDATE relay_ledgeraccount SET limited = %s WHERE user_id = %s AND kind = 'wallet'", (not unlimited, user.pk))
        announce(Change.USER, [str(user.pk)])


def set_quota(token: Token, quota: int | None) -> None:
    """The most that a token may spend in all, in nano-USD; None: no limit of its own."""
    with transaction.atomic():
        db = LedgerSql()
        open_quota(token)
        db.run("UPDATE relay_ledgeraccount SET limited = %s, granted = %s WHERE token_id = %s AND kind = 'quota'", (quota is not None, quota or 0, token.pk))
        announce(Change.TOKEN, [token.digest])


def set_budget(budget: Budget) -> None:
    """Put a new or changed budget in force for the period that runs."""
    db, day = LedgerSql(), today()
    user_id, limit = budget.owner_id, money.nano(budget.limit)
    open_account(db, f"wallet:{user_id}", "wallet", user_id)
    db.lock(user_id)
    _open_budget(db, user_id, budget.token_id, budget.period, day, limit)
    key = budget_key(user_id, budget.token_id, budget.period, bounds(budget.period, day)[0])
    db.run(f"UPDATE relay_ledgeraccount SET granted = %s, limited = %s WHERE {db.key} = %s", (limit, True, key))  # noqa: S608


def lift_budget(budget: Budget) -> None:
    """A budget is taken away: its account limits nothing any more, and keeps its figures."""
    db = LedgerSql()
    db.lock(budget.owner_id)
    whose, value = ("token_id = %s", budget.token_id) if budget.token_id is not None else ("token_id IS NULL AND user_id = %s", budget.user_id)
    db.run(f"UPDATE relay_ledgeraccount SET limited = %s WHERE kind = 'budget' AND period = %s AND {whose}", (False, budget.period, value))  # noqa: S608


def _grant(db: LedgerSql, user_id: int, amount: int, kind: str, source: str, actor: Any, reason: str) -> None:
    db.run("UPDATE relay_ledgeraccount SET granted = granted + %s WHERE user_id = %s AND kind = 'wallet'", (amount, user_id))
    db.write([_human(db, user_id, kind, source, "wallet", amount, actor, reason)])


def _human(db: LedgerSql, user_id: int, kind: str, debit: str, credit: str, amount: int, actor: Any, reason: str) -> EntryValues:
    return (db.at(time.time()), str(kind), debit, credit, amount, 0, user_id, None, today(), "", "", getattr(actor, "pk", None), reason[:200])
