"""Accounts of the ledger: wallets, quotas, budgets."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from portal.lib.money import NANO
from relay.billing.ledger import movements
from relay.billing.ledger.lines import SpendScope
from relay.billing.ledger.verify import verify
from relay.models import LedgerAccount, Token
from tests.billing.ledger.entries import free, reserve
from tests.support.portal import People

pytestmark = pytest.mark.shared


def test_deductions_leave_reservations_alone(scope: SpendScope, people: People) -> None:
    reserve(scope, NANO // 2)
    with pytest.raises(movements.NotEnough, match=r"\$0.50"):
        movements.deduct(people.owner, NANO // 2 + 1, actor=people.staff, reason="too much")
    movements.deduct(people.owner, NANO // 2, actor=people.staff, reason="refund")
    assert free(scope) == 0 and verify().clean


def test_starting_balance(people: People, settings: Any) -> None:
    from accounts.models import User

    for setting, limited, granted in (("2.50", True, 2_500_000_000), ("unlimited", False, 0), ("0", True, 0)):
        settings.CONFIG = settings.CONFIG.model_copy(update={"new_user_balance": setting})
        user = User.objects.create_user(f"new-{setting}")
        wallet = LedgerAccount.objects.get(user=user, kind="wallet")
        assert (wallet.limited, wallet.granted) == (limited, granted)
    assert not LedgerAccount.objects.get(user=people.staff, kind="wallet").limited, "superusers are unlimited"
    assert verify().clean


def test_quota_and_budget_accounts_follow_what_people_set(token: Token) -> None:
    from relay.models import Budget

    movements.set_quota(token, 5)
    account = LedgerAccount.objects.get(token=token, kind="quota")
    assert (account.limited, account.granted) == (True, 5)
    movements.set_quota(token, None)
    account.refresh_from_db()
    assert not account.limited
    budget = Budget.objects.create(token=token, period="day", limit=Decimal(1))
    assert LedgerAccount.objects.get(token=token, kind="budget").granted == NANO
    budget.limit = Decimal(2)
    budget.save()
    assert LedgerAccount.objects.get(token=token, kind="budget").granted == 2 * NANO
    budget.delete()
    assert not LedgerAccount.objects.get(token=token, kind="budget").limited
    assert verify().clean
