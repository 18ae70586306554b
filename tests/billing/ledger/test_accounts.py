"""Accounts of the ledger: wallets, quotas, budgets."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from portal.lib.money import NANO
from relay.billing.ledger import movements, requests
from relay.billing.ledger.lines import SpendScope
from relay.billing.ledger.sql import LedgerSql
from relay.billing.ledger.verify import verify
from relay.models import LedgerAccount, Token
from relay.tokens.lifecycle import create_token
from tests.billing.ledger.entries import charge, free, record, reserve
from tests.support.portal import People

pytestmark = pytest.mark.shared


def test_deductions_leave_reservations_alone(scope: SpendScope, people: People) -> None:
    reserve(scope, NANO // 2)
    with pytest.raises(movements.NotEnough, match=r"\$0.50"):
        movements.deduct(people.owner, NANO // 2 + 1, actor=people.staff, reason="too much")
    movements.deduct(people.owner, NANO // 2, actor=people.staff, reason="refund")
    assert free(scope) == 0 and verify().clean


def test_no_wallet_ever_holds_more_than_64_bits(scope: SpendScope, people: People) -> None:
    billion = 10**9 * NANO
    with pytest.raises(movements.TooMuch, match=r"\$4,611,686,018\.43 in all"):
        for _ in range(12):
            movements.top_up(people.owner, billion, actor=people.staff, reason="Invoice")
    wallet = LedgerAccount.objects.get(user=people.owner, kind="wallet")
    assert wallet.granted == 4 * billion + NANO and verify().clean


def test_no_charge_takes_an_account_beyond_64_bits(scope: SpendScope, people: People) -> None:
    movements.set_unlimited(people.owner, True)
    dear = charge(10**18, 0, house=True)
    with pytest.raises(OverflowError):
        for _ in range(6):
            requests.settle(LedgerSql(), "", scope, [dear])
    assert LedgerAccount.objects.get(user=people.owner, kind="wallet").used == 4 * 10**18


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


def test_a_quota_of_nothing_limits(token: Token) -> None:
    movements.set_quota(token, 0)
    account = LedgerAccount.objects.get(token=token, kind="quota")
    assert (account.limited, account.granted) == (True, 0)


def test_a_new_budget_begins_with_what_its_own_token_has_spent_and_holds(
    token: Token, scope: SpendScope, people: People
) -> None:
    from relay.models import Budget

    other = create_token(people.owner, "phone", actor=None)[0]
    elsewhere = replace(scope, token_id=other.pk)
    reserve(scope, 1000)
    reserve(elsewhere, 5000, reservation="o" * 32)
    for request_id, mine, cost in (("req_1", scope, 300), ("req_2", elsewhere, 2000)):
        requests.settle(LedgerSql(), "", mine, [charge(cost, 0, request_id)])
        record(mine, request_id, cost)
    Budget.objects.create(token=token, period="day", limit=Decimal(1))
    account = LedgerAccount.objects.get(token=token, kind="budget")
    assert (account.used, account.reserved) == (300, 1000)
    Budget.objects.create(user=people.owner, period="day", limit=Decimal(1))
    account = LedgerAccount.objects.get(token=None, kind="budget")
    assert (account.used, account.reserved) == (2300, 6000)
    assert verify().clean


def test_lifting_a_budget_of_the_user_leaves_those_of_tokens_in_force(token: Token, people: People) -> None:
    from relay.models import Budget

    Budget.objects.create(token=token, period="month", limit=Decimal(1))
    whole = Budget.objects.create(user=people.owner, period="month", limit=Decimal(2))
    Budget.objects.create(user=people.owner, period="day", limit=Decimal(3))
    whole.delete()
    limited = LedgerAccount.objects.filter(kind="budget", limited=True).values_list("token_id", "period")
    assert set(limited) == {(token.pk, "month"), (None, "day")}
