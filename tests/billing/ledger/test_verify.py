"""`verify` finds what was tampered with."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from typing import Any

import msgspec
import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from portal.lib import money
from portal.lib.money import NANO
from relay.billing.ledger import movements, requests
from relay.billing.ledger.lines import SpendScope
from relay.billing.ledger.sql import LedgerSql
from relay.billing.ledger.verify import Report, _check_account, _UserTotals, verify
from relay.models import LedgerAccount
from tests.billing.ledger.entries import charge, record, reserve
from tests.support.money import wallet
from tests.support.portal import People

pytestmark = pytest.mark.shared


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
        ("UPDATE relay_usagerecord SET cost = cost + 1, shortfall = shortfall + 1", "what nothing covered"),
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


def test_verify_finds_records_of_a_user_of_whom_the_ledger_knows_nothing(scope: SpendScope, people: People) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM relay_ledgeraccount WHERE user_id = %s", (people.other.pk,))
    assert verify().clean
    record(replace(scope, user_id=people.other.pk), "req_2", 300)
    assert [one.is_now for one in verify().differences] == [300]


def test_verify_finds_a_balance_below_zero() -> None:
    """Databases that check it themselves let none be written."""
    report = Report()
    _check_account(report, _UserTotals(), (1, None, "wallet", 0, 1, "wallet:1", 5, 7, 0))
    assert any("must not be negative" in str(one) for one in report.differences)


def test_verify_reports_figures_that_left_64_bits(scope: SpendScope) -> None:
    """As twelve top-ups of a billion USD left them on SQLite in older versions; others refuse them."""
    most = 2**63 - 1
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("UPDATE relay_ledgeraccount SET granted = 1.2e19 WHERE kind = 'wallet'")
        cursor.execute("UPDATE relay_ledgerentry SET amount = %s WHERE kind = 'top_up'", (most,))
        columns = "at, kind, debit, credit, held, user_id, token_id, day, request_id, reservation, actor_id, reason"
        copy = f"INSERT INTO relay_ledgerentry ({columns}, amount) SELECT {columns}, amount FROM relay_ledgerentry"
        cursor.execute(f"{copy} WHERE kind = 'top_up'")
    record(scope, "req_1", most)
    record(scope, "req_2", most)
    report = verify()
    assert {(one.what, one.should_be) for one in report.differences} >= {("granted", 2 * most), ("what was charged", 0)}
    with pytest.raises(SystemExit) as stopped:
        call_command("ledger", "verify", "--json", stdout=StringIO())
    assert stopped.value.code == 1


@pytest.mark.skipif(connection.vendor != "sqlite", reason="the others refuse a figure that their column cannot hold")
def test_a_wallet_beyond_what_sqlite_counts_is_reported_and_mended(people: People) -> None:
    """As twelve top-ups of a billion made it: a float in the column, and a sum that SQLite refuses."""
    for _ in range(12):
        movements.top_up(people.owner, NANO, actor=None, reason="x")
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE relay_ledgerentry SET amount = {10**18}")
        cursor.execute(f"UPDATE relay_ledgeraccount SET granted = {12 * 10**18} WHERE granted > 0")
    movements.top_up(people.other, NANO, actor=None, reason="x")
    stored: Any = wallet(people.owner).granted
    assert isinstance(stored, float)
    (difference,) = verify().differences
    assert "more than a wallet can hold" in str(difference)
    with pytest.raises(SystemExit):
        call_command("ledger", "verify", stdout=StringIO())
    out = StringIO()
    call_command("ledger", "mend", "alice", "100", stdout=out)
    assert "has $100.00 now" in out.getvalue()
    account = wallet(people.owner)
    assert isinstance(account.granted, int) and account.balance == 100 * NANO
    assert verify().clean
    for name, balance, said in (("bob", "5", "in order"), ("alice", "5", "in order"), ("eve", "5", "no user")):
        with pytest.raises(CommandError, match=said):
            call_command("ledger", "mend", name, balance)


@pytest.mark.parametrize(
    "balance", ["nonsense", "-1", "1e30", "9999999999", "\u00b2", "9" * 5000], ids=lambda text: text[:9]
)
def test_a_wallet_is_not_mended_to_nonsense(people: People, balance: str) -> None:
    with pytest.raises(CommandError, match="is no balance"):
        call_command("ledger", "mend", "alice", balance)


def test_sums_beyond_64_bits_are_reported(people: People) -> None:
    for _ in range(5):
        movements.top_up(people.owner, 2 * NANO, actor=None, reason="x")
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE relay_ledgerentry SET amount = {money.LARGEST}")
    (difference,) = verify().differences
    assert difference.what == "granted" and difference.should_be == 5 * money.LARGEST


@pytest.mark.parametrize("house", [False, True])
def test_the_sides_of_the_books_are_what_is_held_and_left(scope: SpendScope, house: bool) -> None:
    """Also when a request cost more than was held for it, or was paid for by the house in the end."""
    reserve(scope, 1000)
    requests.settle(LedgerSql(), "h" * 32, scope, [msgspec.structs.replace(charge(1500, 700), house=house)])
    record(scope, "req_1", 1500)
    report = verify()
    assert report.clean and sum(report.totals.values()) == 0
    purse = LedgerAccount.objects.get(user=scope.user_id, kind="wallet")
    assert report.totals["held"] == report.reserved == purse.reserved == 300
    assert report.totals["wallet"] == purse.granted - purse.used - purse.reserved
