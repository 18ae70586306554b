"""Changes of accounts by people and settings: top-ups, deductions, redeemed codes, quotas, budgets.

Each function is one transaction, or part of the caller's. Changes that workers hold in memory are announced to them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from accounts.models import Change, User
from accounts.models.change import announce
from portal.lib import money
from portal.lib.days import Days, bounds
from relay.billing.ledger.accounts import budget_key, open_account, open_budget
from relay.billing.ledger.sql import EntryValues, LedgerSql
from relay.billing.ledger.verify import granted_by
from relay.models import Budget, LedgerAccount, LedgerEntry, RedemptionCode, Token
from relay.models.ledger import EntryKind

BY_PEOPLE: Final = (EntryKind.STARTING, EntryKind.TOP_UP, EntryKind.DEDUCT, EntryKind.REDEEM)
_NOT_REDEEMABLE: Final = {
    "redeemed": gettext_noop("This code has been redeemed already."),
    "expired": gettext_noop("This code has expired."),
    "disabled": gettext_noop("This code is no longer valid."),
}


_OPEN: Final = (  # an account without use, of all time
    "INSERT INTO relay_ledgeraccount ({key}, kind, user_id, token_id, limited, granted, period, first_day, last_day, "
    "used, reserved) VALUES (%s, %s, %s, %s, %s, %s, '', 0, {end}, 0, 0)"
)


class NotEnough(Exception):
    """A deduction is larger than what is free in the wallet."""

    def __init__(self, free: int) -> None:
        text = _("Only %(amount)s can be taken; the rest is spent or reserved by running requests.")
        super().__init__(text % {"amount": money.exact(max(free, 0))})
        self.free = free  # nano-USD


class TooMuch(ValidationError):
    """A wallet cannot hold so much."""

    def __init__(self) -> None:
        text = _("A wallet can hold %(most)s in all, spent amounts included. Make it unlimited instead.")
        super().__init__(text % {"most": money.show(money.LARGEST)})


class NotRuined(Exception):
    """A wallet is in order: its figure is that of its entries, and within its bound."""


class NotRedeemable(Exception):
    """A code cannot be redeemed. The message is shown to the user."""


def today() -> int:
    """Return the ordinal of the current day in the portal's time zone."""
    return Days(settings.TIME_ZONE).of(time.time())


def open_wallet(user: User) -> None:
    """Open the wallet of a new user with the configured starting balance. Wallets of superusers are unlimited."""
    starting: str = settings.CONFIG.new_user_balance
    unlimited = user.is_superuser or starting == "unlimited"
    with transaction.atomic():
        db = LedgerSql()
        if open_account(db, f"wallet:{user.pk}", "wallet", user.pk, limited=not unlimited) and not unlimited:
            amount = money.nano(Decimal(starting))
            if amount:
                _grant(db, user.pk, amount, EntryKind.STARTING, "house", None, "Starting balance")


def open_quota(token: Token) -> None:
    """Open the quota of a new token, unlimited until `set_quota`."""
    with transaction.atomic():
        db = LedgerSql()
        open_account(db, f"wallet:{token.user_id}", "wallet", token.user_id)
        open_account(db, f"quota:{token.pk}", "quota", token.user_id, token.pk, limited=False)


def top_up(user: User, amount: int, *, actor: Any, reason: str) -> None:
    """Add `amount` nano-USD to a wallet. Raises TooMuch, and ValueError when it is not positive."""
    if amount <= 0:
        raise ValueError("a top-up is more than nothing")
    with transaction.atomic():
        db = LedgerSql()
        open_account(db, f"wallet:{user.pk}", "wallet", user.pk)
        _grant(db, user.pk, amount, EntryKind.TOP_UP, "funding", actor, reason)


def newest_movement(user: User) -> LedgerEntry | None:
    """Return the entry that last added to a user's wallet or took from it, other than for requests."""
    return LedgerEntry.objects.filter(user=user, token=None, kind__in=BY_PEOPLE).order_by("-pk").first()


def deduct(user: User, amount: int, *, actor: Any, reason: str) -> None:
    """Take `amount` nano-USD out of a wallet. Raises NotEnough, and ValueError when it is not positive."""
    if amount <= 0:
        raise ValueError("a deduction is more than nothing")
    with transaction.atomic():
        db = LedgerSql()
        taken = db.run(
            "UPDATE relay_ledgeraccount SET granted = granted - %s WHERE user_id = %s AND kind = 'wallet' AND granted "
            "- used - reserved >= %s",
            (amount, user.pk, amount),
        )
        if taken.rowcount != 1:
            wallet = LedgerAccount.objects.filter(user=user, kind="wallet").first()
            raise NotEnough(wallet.free if wallet else 0)
        db.write([_entry_by(db, user.pk, EntryKind.DEDUCT, "wallet", "funding", amount, actor, reason)])


def deduct_up_to(user: User, amount: int, *, actor: Any, reason: str) -> int:
    """Take `amount` nano-USD out of a wallet, or as much of it as is free. Returns what was taken."""
    for _try in range(3):  # what is free may change meanwhile
        wallet = LedgerAccount.objects.filter(user=user, kind="wallet").first()
        possible = min(amount, wallet.free if wallet is not None else 0)
        if possible <= 0:
            return 0
        try:
            deduct(user, possible, actor=actor, reason=reason)
        except NotEnough:
            continue
        return possible
    return 0


def open_wallets(opened: Sequence[tuple[int, int | None]], reason: str) -> None:
    """Open the wallets of users who were made at once, by id, with a balance in nano-USD; None: unlimited.

    Inside the caller's transaction, which made the users.
    """
    db = LedgerSql()
    db.insert(
        _OPEN.format(key=db.key, end=LedgerAccount.FOR_EVER),
        [(f"wallet:{user}", "wallet", user, None, amount is not None, amount or 0) for user, amount in opened],
    )
    db.write(
        [
            _entry_by(db, user, EntryKind.STARTING, "house", "wallet", amount, None, reason)
            for user, amount in opened
            if amount
        ]
    )


def open_quotas(opened: Sequence[tuple[int, int, int | None]]) -> None:
    """Open the quotas of tokens that were made at once: `(token, its user, nano-USD)`; None: no limit of its own.

    Inside the caller's transaction, which made the tokens. The users have wallets.
    """
    db = LedgerSql()
    db.insert(
        _OPEN.format(key=db.key, end=LedgerAccount.FOR_EVER),
        [(f"quota:{token}", "quota", user, token, quota is not None, quota or 0) for token, user, quota in opened],
    )


def change_quota(token: Token, amount: int) -> None:
    """Let a token that has a quota spend so many nano-USD more, or less; never less than nothing."""
    with transaction.atomic():
        db = LedgerSql()
        db.run(
            "UPDATE relay_ledgeraccount SET granted = CASE WHEN granted + %s < 0 THEN 0 ELSE granted + %s END "
            "WHERE token_id = %s AND kind = 'quota' AND limited = %s",
            (amount, amount, token.pk, True),
        )
        announce(Change.TOKEN, [token.digest])


def redeem(code: RedemptionCode, user: User) -> int:
    """Add a code's amount to a wallet, once. Returns it in nano-USD. Raises NotRedeemable."""
    try:
        return _redeem(code, user)
    except TooMuch as error:
        raise NotRedeemable(error.message) from None


def _redeem(code: RedemptionCode, user: User) -> int:
    with transaction.atomic():
        db = LedgerSql()
        state = code.state()
        if state == "open":
            now = time.time()
            open_account(db, f"wallet:{user.pk}", "wallet", user.pk)
            db.lock(user.pk)
            won = db.run(
                "UPDATE relay_redemptioncode SET redeemed_at = %s, redeemed_by_id = %s WHERE id = %s AND redeemed_at "
                "IS NULL AND enabled = %s",
                (db.at(now), user.pk, code.pk, True),
            )
            if won.rowcount == 1:
                _grant(db, user.pk, code.batch.amount, EntryKind.REDEEM, "codes", user, f"Code {code.hint}")
                return code.batch.amount
            state = "redeemed"
        raise NotRedeemable(_(_NOT_REDEEMABLE[state]))


def mend_wallet(user: User, balance: int, *, reason: str) -> int:
    """Bring a wallet whose figure is beyond its column, or its bound, back to a balance in nano-USD.

    The difference is entries like any other, so that the books prove it. Returns nano-USD taken out, negative: added.
    Raises NotRuined when the wallet is in order.
    """
    with transaction.atomic():
        db = LedgerSql()
        db.lock(user.pk)
        wallet = db.run(
            "SELECT granted, used, reserved FROM relay_ledgeraccount WHERE user_id = %s AND kind = 'wallet'", (user.pk,)
        ).fetchone()
        entries = LedgerEntry.objects.filter(user_id=user.pk).values_list("kind", "debit", "amount")
        granted = sum(granted_by(*entry) for entry in entries.iterator())
        if wallet is None or (wallet[0] == granted and abs(granted) <= money.LARGEST):
            raise NotRuined
        wanted = int(wallet[1]) + int(wallet[2]) + balance
        if not abs(wanted) <= money.LARGEST:
            raise ValueError("the balance is larger than a wallet can hold")
        taken, sides = granted - wanted, (EntryKind.DEDUCT, "wallet", "funding")
        if taken < 0:
            sides = (EntryKind.TOP_UP, "funding", "wallet")
        left = abs(taken)
        while left:
            part = min(left, money.LARGEST)
            db.write([_entry_by(db, user.pk, *sides, part, None, reason)])
            left -= part
        db.run("UPDATE relay_ledgeraccount SET granted = %s WHERE user_id = %s AND kind = 'wallet'", (wanted, user.pk))
        announce(Change.USER, [str(user.pk)])
        return taken


def set_unlimited(user: User, unlimited: bool) -> None:
    """Set whether a user may spend more than the wallet's balance, at the portal's expense."""
    with transaction.atomic():
        db = LedgerSql()
        open_account(db, f"wallet:{user.pk}", "wallet", user.pk)
        db.run(
            "UPDATE relay_ledgeraccount SET limited = %s WHERE user_id = %s AND kind = 'wallet'",
            (not unlimited, user.pk),
        )
        announce(Change.USER, [str(user.pk)])


def set_quota(token: Token, quota: int | None) -> None:
    """Set the most that a token may spend in all, in nano-USD; None: no limit of its own."""
    with transaction.atomic():
        db = LedgerSql()
        open_quota(token)
        db.run(
            "UPDATE relay_ledgeraccount SET limited = %s, granted = %s WHERE token_id = %s AND kind = 'quota'",
            (quota is not None, quota or 0, token.pk),
        )
        announce(Change.TOKEN, [token.digest])


def set_budget(budget: Budget) -> None:
    """Put a new or changed budget in force for the current period. Inside the caller's transaction."""
    db, day = LedgerSql(), today()
    user_id, limit = budget.owner_id, money.nano(budget.limit)
    open_account(db, f"wallet:{user_id}", "wallet", user_id)
    db.lock(user_id)
    open_budget(db, user_id, budget.token_id, budget.period, day, limit)
    key = budget_key(user_id, budget.token_id, budget.period, bounds(budget.period, day)[0])
    sql = f"UPDATE relay_ledgeraccount SET granted = %s, limited = %s WHERE {db.key} = %s"  # noqa: S608
    db.run(sql, (limit, True, key))


def lift_budget(budget: Budget) -> None:
    """End a budget: its accounts no longer limit anything, and keep their figures. Inside the caller's transaction."""
    db = LedgerSql()
    db.lock(budget.owner_id)
    condition, value = (
        ("token_id = %s", budget.token_id)
        if budget.token_id is not None
        else ("token_id IS NULL AND user_id = %s", budget.user_id)
    )
    condition = f"kind = 'budget' AND period = %s AND {condition}"
    sql = f"UPDATE relay_ledgeraccount SET limited = %s WHERE {condition}"  # noqa: S608
    db.run(sql, (False, budget.period, value))


def _grant(db: LedgerSql, user_id: int, amount: int, kind: str, source: str, actor: Any, reason: str) -> None:
    """Put an amount into a wallet, whose figures must stay in 64 bits: SQLite would round beyond. Raises TooMuch."""
    granted = db.run(
        "UPDATE relay_ledgeraccount SET granted = granted + %s "
        "WHERE user_id = %s AND kind = 'wallet' AND granted <= %s",
        (amount, user_id, money.LARGEST - amount),
    )
    if granted.rowcount != 1:
        raise TooMuch
    db.write([_entry_by(db, user_id, kind, source, "wallet", amount, actor, reason)])


def _entry_by(
    db: LedgerSql, user_id: int, kind: str, debit: str, credit: str, amount: int, actor: Any, reason: str
) -> EntryValues:
    return (
        db.at(time.time()),
        str(kind),
        debit,
        credit,
        amount,
        0,
        user_id,
        None,
        today(),
        "",
        "",
        getattr(actor, "pk", None),
        reason[:200],
    )
