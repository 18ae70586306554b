"""The ledger itself: immutable rows, reservations, the sweeper, codes, and that `verify` finds what was tampered with."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction

from portal.lib.money import NANO
from relay.billing.ledger import movements, requests
from relay.billing.ledger.lines import Charge, SpendScope
from relay.billing.ledger.sql import LedgerSql
from relay.billing.ledger.verify import verify
from relay.billing.redemption import create_codes, find_code
from relay.models import LedgerAccount, LedgerEntry, RedemptionBatch, RedemptionCode, Reservation, Token
from relay.models.ledger import Immutable
from relay.tokens.lifecycle import create_token
from tests.conftest import People, Portal


@pytest.fixture
def token(people: People) -> Token:
    movements.top_up(people.owner, NANO, actor=people.staff, reason="test")
    return create_token(people.owner, "laptop", actor=None)[0]


@pytest.fixture
def scope(token: Token) -> SpendScope:
    return SpendScope(token.user_id, token.pk, movements.today())


def free(scope: SpendScope) -> int:
    return LedgerAccount.objects.get(user=scope.user_id, kind="wallet").free


def charge(cost: int, covered: int, request_id: str = "req_1", house: bool = False) -> Charge:
    return Charge(request_id, cost, covered, house, time.time())


def record(scope: SpendScope, request_id: str, cost: int, shortfall: int = 0) -> None:
    """The usage record that belongs to a charge made by hand."""
    from portal.lib import clock
    from relay.models import UsageRecord

    UsageRecord.objects.create(
        request_id=request_id, started_at=clock.now(), user_id=scope.user_id, token_id=scope.token_id, model="m", endpoint="chat.completions", streamed=False, status=200,
        end_reason="completed", usage_source="reported", latency_ms=1, cost=cost, shortfall=shortfall,
    )  # fmt: skip


def reserve(scope: SpendScope, need: int, headroom: int = 0, minimum: int | None = None, reservation: str = "h" * 32) -> Any:
    return requests.reserve(LedgerSql(), reservation, "host:1:2:x", scope, (), need, headroom, need if minimum is None else minimum, time.time())


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
    assert [entry.kind for entry in LedgerEntry.objects.filter(request_id="req_1").order_by("id")] == ["usage", "shortfall"]
    assert verify().clean


def test_a_reservation_that_was_swept_does_not_free_the_request(scope: SpendScope) -> None:
    """A worker that was thought dead finishes all the same: it is charged from what is free."""
    reserve(scope, 1000)
    assert requests.sweep(time.time() + 1000) == 1
    assert requests.settle(LedgerSql(), "h" * 32, scope, [charge(300, 1000)])[0].shortfall == 0
    record(scope, "req_1", 300)
    assert free(scope) == NANO - 300
    assert verify().clean


def test_the_sweeper_takes_only_what_nobody_looks_after(scope: SpendScope) -> None:
    reserve(scope, 1000)
    assert requests.sweep(time.time()) == 0
    requests.prolong(LedgerSql(), "host:1:2:x", time.time() + 500)
    assert requests.sweep(time.time() + 400) == 0
    assert requests.sweep(time.time(), lambda owner: owner.startswith("host:1:")) == 1
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


def test_rows_cannot_be_changed_or_deleted(scope: SpendScope) -> None:
    entry = LedgerEntry.objects.first()
    assert entry is not None
    entry.amount = 5
    for change in (
        entry.save,
        entry.delete,
        lambda: LedgerEntry.objects.all().delete(),
        lambda: LedgerEntry.objects.update(amount=1),
        lambda: LedgerEntry.objects.bulk_update([entry], ["amount"]),
        lambda: LedgerEntry.objects.update_or_create(pk=entry.pk, amount=1),
    ):
        with pytest.raises(Immutable, match="never changed"):
            change()
    assert LedgerEntry.objects.get(pk=entry.pk).amount == NANO


@pytest.mark.parametrize(
    "sql", ["UPDATE relay_ledgeraccount SET used = granted + 1 WHERE kind = 'wallet'", "UPDATE relay_ledgeraccount SET reserved = -1", "UPDATE relay_ledgerentry SET amount = -1"]
)
def test_the_database_itself_refuses_negative_figures(scope: SpendScope, sql: str) -> None:
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("UPDATE relay_ledgeraccount SET granted = granted + 1 WHERE kind = 'wallet' AND granted > 0", "granted"),
        ("UPDATE relay_ledgeraccount SET reserved = 5 WHERE kind = 'quota'", "reserved"),
        ("UPDATE relay_ledgeraccount SET used = 5 WHERE kind = 'quota'", "used"),
        ("UPDATE relay_ledgerentry SET amount = amount + 7 WHERE kind = 'top_up'", "granted"),
        ("DELETE FROM relay_ledgerentry WHERE kind = 'usage'", "used"),
        ("UPDATE relay_ledgerentry SET credit = 'away' WHERE kind = 'top_up'", "do not exist"),
        ("UPDATE relay_reservation SET amount = amount + 1", "what is held"),
        ("DELETE FROM relay_reservation", "what is held"),
        ("DELETE FROM relay_ledgerentry", "what is held"),
        ("DELETE FROM relay_ledgeraccount WHERE kind = 'wallet'", "which is missing"),
        ("DELETE FROM relay_ledgeraccount", "which is missing"),
        ("DELETE FROM relay_usagerecord", "what was charged"),
        ("UPDATE relay_usagerecord SET cost = cost + 1", "what was charged"),
    ],
)
def test_verify_finds_what_was_tampered_with(scope: SpendScope, sql: str, found: str) -> None:
    reserve(scope, 1000)
    requests.settle(LedgerSql(), "h" * 32, scope, [charge(300, 1000)])
    record(scope, "req_1", 300)
    assert verify().clean
    with connection.cursor() as cursor:
        cursor.execute(sql)
    report = verify()
    assert not report.clean and any(found in str(one) for one in report.differences)
    with pytest.raises(SystemExit) as stopped:
        call_command("ledger", "verify", stdout=StringIO())
    assert stopped.value.code == 1


def test_the_command_says_what_it_counted(scope: SpendScope) -> None:
    out = StringIO()
    call_command("ledger", "verify", stdout=out)
    assert "The books balance." in out.getvalue()
    out = StringIO()
    call_command("ledger", "verify", "--json", stdout=out)
    found = json.loads(out.getvalue())
    assert found["clean"] is True and found["totals_usd"]["funding"] == f"-{found['totals_usd']['wallet']}"
    out = StringIO()
    call_command("ledger", "sweep", stdout=out)
    assert "given back" in out.getvalue()


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


# -- codes -------------------------------------------------------------------------------------------------------------


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
