"""Requests on the ledger: reserved, charged, released, swept."""

from __future__ import annotations

import time

import pytest

from portal.lib.money import NANO
from relay.billing.ledger import requests
from relay.billing.ledger.lines import SpendScope
from relay.billing.ledger.sql import LedgerSql
from relay.billing.ledger.verify import verify
from relay.models import LedgerEntry, Reservation
from tests.billing.ledger.entries import charge, free, record, reserve

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
