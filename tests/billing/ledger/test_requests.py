"""Requests on the ledger: reserved, charged, released, swept."""

from __future__ import annotations

import time

import pytest

from portal.lib.money import NANO
from relay.billing.ledger import movements, requests
from relay.billing.ledger.lines import BudgetLine, ReserveOrder, SpendScope
from relay.billing.ledger.sql import LedgerSql
from relay.billing.ledger.verify import verify
from relay.models import LedgerAccount, LedgerEntry, Reservation, Token
from tests.billing.ledger.entries import charge, free, record, reserve
from tests.support.portal import People

pytestmark = pytest.mark.shared


def test_reserve_settle_release(scope: SpendScope) -> None:
    assert reserve(scope, 1000).granted == 1000
    assert free(scope) == NANO - 1000
    assert requests.settle(LedgerSql(), "h" * 32, scope, [charge(300, 1000)])[0].from_reservation == 300
    record(scope, "req_1", 300)
    assert requests.release(LedgerSql(), "h" * 32, scope, None, time.time()) == 700
    assert free(scope) == NANO - 300
    assert verify().clean


def test_more_is_held_only_where_there_is_plenty(scope: SpendScope) -> None:
    assert reserve(scope, 1000, 16_000).granted == 17_000
    near = reserve(scope, NANO // 2, 16 * NANO // 2)
    assert near.tight and near.granted == NANO // 2
    rest = reserve(scope, NANO, minimum=1)
    assert rest.granted == NANO - NANO // 2 - 17_000 and rest.free == 0
    assert reserve(scope, 1).granted == 0
    assert verify().clean


def test_a_charge_takes_what_is_there_and_never_more(scope: SpendScope) -> None:
    reserve(scope, NANO // 2)
    outcome = requests.settle(LedgerSql(), "h" * 32, scope, [charge(3 * NANO, NANO // 2)])[0]
    assert (outcome.from_reservation, outcome.shortfall) == (NANO // 2, 2 * NANO)
    record(scope, "req_1", 3 * NANO, 2 * NANO)
    assert free(scope) == 0
    assert [entry.kind for entry in LedgerEntry.objects.filter(request_id="req_1").order_by("id")] == [
        "usage",
        "shortfall",
    ]
    assert verify().clean


def test_a_reservation_that_was_swept_does_not_free_the_request(scope: SpendScope) -> None:
    """A worker that was thought dead finishes all the same: it is charged from what is free."""
    reserve(scope, 1000)
    assert requests.release_expired(time.time() + 1000) == 1
    assert requests.settle(LedgerSql(), "h" * 32, scope, [charge(300, 1000)])[0].shortfall == 0
    record(scope, "req_1", 300)
    assert free(scope) == NANO - 300
    assert verify().clean


def test_the_sweeper_takes_only_what_nobody_looks_after(scope: SpendScope) -> None:
    reserve(scope, 1000)
    assert requests.release_expired(time.time()) == 0
    requests.prolong(LedgerSql(), "host:1:2:x", time.time() + 500)
    assert requests.release_expired(time.time() + 400) == 0
    assert requests.release_expired(time.time(), lambda owner: owner.startswith("host:1:")) == 1
    assert free(scope) == NANO and not Reservation.objects.exists()
    assert verify().clean


def test_no_more_is_given_back_than_is_held(scope: SpendScope) -> None:
    reserve(scope, 1000)
    assert requests.release(LedgerSql(), "h" * 32, scope, 300, time.time()) == 300
    assert requests.release(LedgerSql(), "h" * 32, scope, 2000, time.time()) == 700
    assert free(scope) == NANO and verify().clean


def test_headroom_is_held_while_it_is_a_small_share_of_what_is_free(scope: SpendScope) -> None:
    assert not reserve(scope, NANO // 64, NANO // 64, reservation="a" * 32).tight
    requests.release(LedgerSql(), "a" * 32, scope, None, time.time())
    assert reserve(scope, NANO // 64, NANO // 64 + 1, reservation="b" * 32).tight


def test_a_wallet_that_was_made_unlimited_while_a_request_ran_is_paid_for_by_the_portal(
    scope: SpendScope, people: People
) -> None:
    reserve(scope, 1000)
    movements.set_unlimited(people.owner, True)
    outcome = requests.settle(LedgerSql(), "h" * 32, scope, [charge(3 * NANO, 1000)])[0]
    record(scope, "req_1", 3 * NANO)
    assert (outcome.from_reservation, outcome.shortfall) == (1000, 0)
    assert LedgerEntry.objects.get(request_id="req_1").debit == "house"
    assert free(scope) == NANO and verify().clean


def test_what_the_portal_pays_raises_no_limit_of_the_token(scope: SpendScope, people: People, token: Token) -> None:
    movements.set_unlimited(people.owner, True)
    movements.set_quota(token, 5000)
    requests.settle(LedgerSql(), "", scope, [charge(300, 0, house=True)])
    record(scope, "req_1", 300)
    quota = LedgerAccount.objects.get(token=token, kind="quota")
    assert (quota.granted, quota.used) == (5000, 300) and free(scope) == NANO and verify().clean


def test_a_budget_that_was_lifted_meanwhile_is_not_opened_again(scope: SpendScope) -> None:
    lines = (BudgetLine(None, "day", 500), BudgetLine(scope.token_id, "month", 500))
    order = ReserveOrder("h" * 32, "host:1:2:x", scope, lines, 1000, 0, 1000)
    assert requests.reserve(LedgerSql(), order, time.time()).granted == 1000
    assert not LedgerAccount.objects.filter(kind="budget").exists()


def test_a_reservation_that_was_prolonged_while_it_was_looked_at_is_left_alone(scope: SpendScope) -> None:
    reserve(scope, 1000)

    def comes_back(owner: str) -> bool:
        requests.prolong(LedgerSql(), owner, time.time() + 500)
        return True

    assert requests.release_expired(time.time(), comes_back) == 0
    assert free(scope) == NANO - 1000 and verify().clean


def test_owners_that_are_gone_are_told_from_those_that_live() -> None:
    import os

    from portal.lib.processes import is_dead, process_start
    from relay.gateway.charging.reservations import Reservations

    owner = Reservations("UTC").owner
    assert not is_dead(owner)
    here = owner.partition(":")[0]
    assert is_dead(f"{here}:{os.getpid()}:1:abcd"), "the number of a process that ended is used again by another"
    assert is_dead(f"{here}:999999999:5:abcd")
    assert not is_dead("elsewhere:999999999:5:abcd"), "of other machines only the lease tells"
    assert process_start(os.getpid()).isdigit()
