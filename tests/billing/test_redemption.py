"""Redemption codes: worth their amount once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from portal.lib.money import NANO
from relay.billing.ledger import movements
from relay.billing.ledger.verify import verify
from relay.billing.redemption import create_codes, find_code
from relay.models import LedgerAccount, RedemptionBatch, RedemptionCode
from tests.support.portal import People, Portal

pytestmark = pytest.mark.shared


def test_a_code_is_worth_its_amount_once(people: People) -> None:
    batch, codes = create_codes("Welcome", 5 * NANO, 3, actor=people.staff)
    assert len(set(codes)) == 3 and batch.codes.count() == 3
    assert codes[0] not in json.dumps(list(RedemptionCode.objects.values("sealed", "digest", "hint")))
    code = find_code(f" {codes[0].lower()} ")
    assert code is not None
    assert movements.redeem(code, people.owner) == 5 * NANO
    assert LedgerAccount.objects.get(user=people.owner, kind="wallet").granted == 5 * NANO
    with pytest.raises(movements.NotRedeemable, match="redeemed already"):
        movements.redeem(RedemptionCode.objects.get(pk=code.pk), people.other)
    with pytest.raises(movements.NotRedeemable, match="redeemed already"):
        movements.redeem(code, people.other)  # a row that was read before
    assert find_code("nonsense") is None
    assert verify().clean


def test_expired_and_disabled_codes(people: People) -> None:
    from datetime import timedelta

    from portal.lib import clock

    batch, codes = create_codes("Old", NANO, 2, actor=None, expires_at=clock.now() - timedelta(days=1))
    code = find_code(codes[0])
    assert code is not None
    with pytest.raises(movements.NotRedeemable, match="expired"):
        movements.redeem(code, people.owner)
    RedemptionBatch.objects.filter(pk=batch.pk).update(expires_at=None)
    RedemptionCode.objects.filter(batch=batch).update(enabled=False)
    code = find_code(codes[1])
    assert code is not None
    with pytest.raises(movements.NotRedeemable, match="no longer valid"):
        movements.redeem(code, people.owner)


def test_parallel_redemption_credits_one(live: Portal) -> None:
    users = [live.user(balance=0) for _ in range(8)]
    _, codes = create_codes(live.name("codes"), NANO, 1, actor=None)

    def attempt(user: Any) -> bool:
        try:
            code = find_code(codes[0])
            assert code is not None
            movements.redeem(code, user)
        except movements.NotRedeemable:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(attempt, users))
    assert won.count(True) == 1
    assert sum(LedgerAccount.objects.get(user=user, kind="wallet").granted for user in users) == NANO
    assert verify().clean
