"""Batches of the writer: whoever's requests they have, and whatever else, each is booked as if it were alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.db import DataError, OperationalError, connection
from django.test.utils import CaptureQueriesContext

from portal.lib.money import NANO
from relay.billing.ledger import movements
from relay.billing.ledger.lines import BudgetLine
from relay.billing.ledger.pending import PendingProlongation, PendingWork
from relay.billing.ledger.verify import verify
from relay.billing.ledger.writer import UsageWriter
from relay.models import LedgerAccount, LedgerEntry, Reservation, UsageRecord
from tests.billing.ledger.batches.callers import NEED, Caller, write
from tests.support.asserts import until
from tests.support.environment import IS_POSTGRESQL
from tests.support.money import wallet
from tests.support.portal import Portal

pytestmark = pytest.mark.shared


@pytest.fixture
def writer() -> Iterator[UsageWriter]:
    yield UsageWriter()


def test_one_batch_of_many_users(live: Portal, writer: UsageWriter) -> None:
    callers = [Caller(live) for _ in range(3)]
    callers.append(Caller(live, callers[0]))
    orders = [caller.reserve(10 * NEED) for caller in callers]
    write(writer, *orders)
    assert [order.result and order.result.granted for order in orders] == [10 * NEED] * 4
    assert wallet(callers[0].user).reserved == 20 * NEED, "two tokens of one wallet"
    again = [caller.reserve(NEED) for caller in callers]
    records = [caller.record(cost) for cost in (300, 0, 200) for caller in callers]
    write(writer, *again, *records, *(caller.release(NEED) for caller in callers), callers[1].release())
    assert [caller.held for caller in callers] == [9_500 + NEED - NEED, NEED, 9_500, 9_500]
    assert [wallet(caller.user).used for caller in callers] == [1000, 500, 500, 1000]
    assert all(LedgerAccount.objects.get(token=caller.token, kind="quota").used == 500 for caller in callers)
    assert UsageRecord.objects.filter(user__in=[caller.user for caller in callers]).count() == 12
    assert verify().clean


def test_releases_of_one_reservation_are_added_up(live: Portal, writer: UsageWriter) -> None:
    one, other = Caller(live), Caller(live)
    write(writer, one.reserve(), other.reserve())
    write(writer, one.release(300), one.release(300), other.release(100), other.release(), other.release(5))
    assert (one.held, other.held) == (400, 0)
    assert Reservation.objects.filter(id=other.reservation).count() == 0
    write(writer, one.release(10_000))
    assert one.held == 0 and verify().clean


def test_what_the_first_of_a_batch_gets_is_not_free_for_the_next(live: Portal, writer: UsageWriter) -> None:
    caller = Caller(live)
    write(writer, caller.reserve(1))
    orders = [caller.reserve(NANO // 2) for _ in range(3)]
    write(writer, *orders)
    assert [order.result and order.result.granted for order in orders] == [NANO // 2, 0, 0]
    assert caller.held == NANO // 2 + 1 and verify().clean


def test_a_budget_that_a_batch_opens_has_all_that_was_spent(live: Portal, writer: UsageWriter) -> None:
    from relay.models import Budget

    caller = Caller(live)
    write(writer, caller.reserve())
    write(writer, caller.record(100))
    Budget.objects.create(token=caller.token, period="day", limit=1)
    LedgerAccount.objects.filter(kind="budget", token=caller.token).delete()  # as on the first day of a period
    order = caller.reserve()
    order.order.budgets = (BudgetLine(caller.token.pk, "day", NANO),)
    write(writer, caller.record(50), order)
    budget = LedgerAccount.objects.get(kind="budget", token=caller.token)
    assert (budget.used, budget.reserved, budget.granted) == (150, 2 * NEED - 150, NANO)
    assert verify().clean


def test_a_reservation_that_has_gone_meanwhile(live: Portal, writer: UsageWriter) -> None:
    """The charge is taken from the wallet; that of others in the batch is not touched."""
    gone, there = Caller(live), Caller(live)
    write(writer, gone.reserve(), there.reserve())
    write(writer, gone.release())
    records = [gone.record(300), there.record(400)]
    write(writer, *records)
    assert [record.charged and record.charged.from_reservation for record in records] == [0, 400]
    assert (wallet(gone.user).used, wallet(there.user).used, there.held) == (300, 400, 600)
    assert verify().clean


def test_a_reservation_that_is_smaller_than_its_worker_knows(live: Portal, writer: UsageWriter) -> None:
    caller, other = Caller(live), Caller(live)
    write(writer, caller.reserve(), other.reserve())
    write(writer, caller.release(900))
    records = [caller.record(300), other.record(400)]
    write(writer, *records)
    assert [record.charged and record.charged.from_reservation for record in records] == [100, 400]
    assert (wallet(caller.user).used, wallet(caller.user).reserved, caller.held) == (300, 0, 0)
    assert (wallet(other.user).used, other.held) == (400, 600) and verify().clean


def test_a_charge_of_more_than_was_reserved_in_a_batch(live: Portal, writer: UsageWriter) -> None:
    caller, other = Caller(live), Caller(live)
    write(writer, caller.reserve(), other.reserve())
    write(writer, caller.record(3 * NEED), other.record(10), other.release(), caller.release())
    assert (wallet(caller.user).used, wallet(caller.user).reserved) == (3 * NEED, 0)
    assert wallet(other.user).used == 10 and verify().clean


def test_what_the_house_pays(live: Portal, writer: UsageWriter) -> None:
    caller = Caller(live)
    movements.set_unlimited(caller.user, True)
    write(writer, caller.record(300, covered=0, house=True), caller.record(200, covered=0, house=True))
    found = wallet(caller.user)
    assert (found.used, found.granted) == (500, NANO + 500)
    assert set(LedgerEntry.objects.filter(user=caller.user, kind="usage").values_list("debit", flat=True)) == {"house"}
    assert verify().clean


def test_headroom_beyond_the_usual_stays_a_small_share_of_what_is_free(live: Portal, writer: UsageWriter) -> None:
    caller = Caller(live)
    order = caller.reserve(NEED, NEED, 10 * NANO)
    write(writer, order)
    assert order.result is not None and (order.result.granted, order.result.tight) == (NANO // 32, False)


def test_a_record_that_the_database_refuses_does_not_fail_the_others(live: Portal, writer: UsageWriter) -> None:
    caller = Caller(live)
    write(writer, caller.reserve())
    refused = caller.record(100, status=2**70)
    good = caller.record(200)
    write(writer, refused, good, PendingProlongation("host:1:2:x"))
    assert list(UsageRecord.objects.filter(user=caller.user).values_list("cost", flat=True)) == [200]
    assert wallet(caller.user).used == 200 and verify().clean


@pytest.mark.parametrize("arrived", [True, False])
def test_the_connection_is_lost_while_a_refused_record_is_written_otherwise(
    live: Portal, writer: UsageWriter, monkeypatch: pytest.MonkeyPatch, arrived: bool
) -> None:
    """It is neither written off nor charged twice, whether the commit has arrived or not."""
    caller = Caller(live)
    write(writer, caller.reserve())
    record, commit = caller.record(100), writer._commit
    lost: list[str] = []

    def refusing(batch: Sequence[PendingWork], again: bool, way: str = "") -> None:
        if not way and not again:
            raise DataError("it is refused")
        if way and not lost:
            lost.append(way)
            if arrived:
                commit(batch, again, way)
            raise OperationalError("the connection is lost")
        commit(batch, again, way)

    monkeypatch.setattr(writer, "_commit", refusing)
    write(writer, record)
    assert lost == ["apart"] and writer._locked.pending == 1

    def written() -> bool:
        writer._locked.retry()
        return not writer._locked.pending

    until(written)
    assert (wallet(caller.user).used, caller.held) == (100, NEED - 100)
    assert UsageRecord.objects.get(user=caller.user).shortfall == 0 and verify().clean


@pytest.mark.skipif(not IS_POSTGRESQL, reason="asks PostgreSQL")
class TestPipelined:
    def test_the_number_of_statements_is_that_of_one_request(
        self, live: Portal, writer: UsageWriter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from relay.billing.ledger.batches import postgresql as batch

        sent: list[int] = []
        execute = batch.execute

        def counted(calls: Any) -> Any:
            sent.append(len(calls))
            return execute(calls)

        monkeypatch.setattr(batch, "execute", counted)
        callers = [Caller(live) for _ in range(5)]
        write(writer, *(caller.reserve(2 * NEED) for caller in callers))
        sent.clear()
        with CaptureQueriesContext(connection) as others:
            write(writer, *(caller.record(100) for caller in callers for _ in range(10)))
        assert (sent, len(others)) == ([3, 1], 0), "BEGIN, locks, charges with all rows; COMMIT"
        sent.clear()
        with CaptureQueriesContext(connection) as others:
            more = [caller.reserve() for caller in callers]
            write(writer, *more, callers[0].record(100), callers[0].release(1))
        assert (sent, len(others)) == ([5, 2], 0)

    def test_a_record_is_withdrawn_while_its_transaction_runs(
        self, live: Portal, writer: UsageWriter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from relay.billing.ledger.batches.postgresql import PipelinedBatch

        caller = Caller(live)
        write(writer, caller.reserve())
        record, other = caller.record(100), caller.record(200)
        written: list[bool] = []
        begin = PipelinedBatch.write

        def then_withdrawn(self: PipelinedBatch, *arguments: Any) -> None:
            begin(self, *arguments)
            if not written:
                written.append(writer._commits.withdraw(record, (*record.row[:1], *caller.record(0).row[1:])))

        monkeypatch.setattr(PipelinedBatch, "write", then_withdrawn)
        write(writer, record, other)
        assert written == [True] and wallet(caller.user).used == 200
        assert not writer._commits.withdraw(other, other.row), "it has been committed"
        assert verify().clean

    def test_a_server_that_has_forgotten_our_statements(self, live: Portal, writer: UsageWriter) -> None:
        """As behind a pooler, which gives every transaction another connection to the server."""
        caller = Caller(live)
        write(writer, caller.reserve())
        for _ in range(2):
            with connection.cursor() as cursor:
                cursor.execute("DEALLOCATE ALL")
            write(writer, caller.record(100))
        assert wallet(caller.user).used == 200 and verify().clean

    def test_a_connection_that_is_lost_at_the_commit(
        self, live: Portal, writer: UsageWriter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The record is there once, whether the commit arrived or not."""
        from relay.billing.ledger.batches.postgresql import PipelinedBatch

        caller = Caller(live)
        write(writer, caller.reserve(2 * NEED))
        commit, lost = PipelinedBatch.commit, [True, False]

        def cut(self: PipelinedBatch) -> None:
            if lost:
                if lost.pop():
                    commit(self)
                connection.connection.pgconn.finish()
            commit(self)

        monkeypatch.setattr(PipelinedBatch, "commit", cut)
        write(writer, caller.record(100))
        write(writer, caller.record(200))
        assert not lost and wallet(caller.user).used == 300
        assert UsageRecord.objects.filter(user=caller.user).count() == 2 and verify().clean
