"""What people do with balances, each with its entry in the audit log: pages and the management API call this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.translation import gettext as _

from accounts.models import AuditEvent, User
from portal.lib import money
from relay.billing.ledger import movements
from relay.models import LedgerAccount


def check_room(user: User, amount: int) -> None:
    """Raise ValidationError if a wallet cannot hold `amount` nano-USD more."""
    granted = LedgerAccount.objects.filter(user=user, kind="wallet").values_list("granted", flat=True).first() or 0
    if granted + amount > money.LARGEST:
        raise ValidationError(
            _("A wallet can hold %(most)s in all, spent amounts included. Make it unlimited instead.")
            % {"most": money.show(money.LARGEST)}
        )


def book(
    user: User,
    amount: int,
    reason: str,
    *,
    actor: Any,
    ip: str | None = None,
    check: Callable[[], None] | None = None,
) -> None:
    """Add `amount` nano-USD to a wallet, or take them from it if it is negative.

    `check` is called in the transaction, before anything moves. Raises ValidationError and `movements.NotEnough`.
    """
    adds = amount > 0
    if adds:
        check_room(user, amount)
    with transaction.atomic():
        if check is not None:
            check()
        (movements.top_up if adds else movements.deduct)(user, abs(amount), actor=actor, reason=reason)
        AuditEvent.write(
            "wallet.top-up" if adds else "wallet.deduct",
            actor,
            user,
            ip,
            usd=money.plain(abs(amount)),
            reason=reason,
        )


def set_unlimited(user: User, unlimited: bool, *, actor: Any, ip: str | None = None) -> None:
    """Lift the limit that a balance is, or set it again."""
    with transaction.atomic():
        movements.set_unlimited(user, unlimited)
        AuditEvent.write("wallet.unlimited" if unlimited else "wallet.limited", actor, user, ip)
