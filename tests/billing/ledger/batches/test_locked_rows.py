"""A row of one user that somebody else has locked makes only that user's work wait, in its order.

Whoever locks rows: a page in a transaction that takes long, a command, somebody at the database's own prompt. `ledger
verify`, sums of usage and backups lock none that the writer writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection

from accounts.transactions import consistent_read
from portal.lib.money import NANO
from relay.billing.ledger import movements, requests
from relay.billing.ledger.batches import locked
from relay.billing.ledger.pending import PendingProlongation, PendingRecord, PendingReservation, PendingWork
from relay.billing.ledger.verify import verify
from relay.billing.ledger.writer import UsageWriter
from relay.errors import RelayUnavailable
from relay.models import LedgerAccount, LedgerEntry, Reservation, StoredResponse, UsageRecord
from tests.billing.ledger.batches.callers import LOOP, NEED, Caller, answer, write
from tests.support.asserts import until
from tests.support.environment import IS_MARIADB, IS_POSTGRESQL
from tests.support.money import wallet
from tests.support.portal import Portal, ask
from tests.support.server import Server

pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not (IS_POSTGRESQL or IS_MARIADB), reason="SQLite has one lock for everything"),
]
# What a statement of somebody else locks, by a user, a token, and a reservation.
ROWS = {
    "wallet": "SELECT 1 FROM relay_ledgeraccount WHERE kind = 'wallet' AND user_id = {user} FOR UPDATE",
    "top-up": "UPDATE relay_ledgeraccount SET granted = granted WHERE kind = 'wallet' AND user_id = {user}",
    "quota": "SELECT 1 FROM relay_ledgeraccount WHERE kind = 'quota' AND token_id = {token} FOR UPDATE",
    "budget": "SELECT 1 FROM relay_ledgeraccount WHERE kind = 'budget' AND token_id = {token} FOR UPDATE",
    "reservation": "SELECT 1 FROM relay_reservation WHERE id = '{reservation}' FOR UPDATE",
}
# Rows that others of the user's refer to.
PARENTS = {
    "user": "SELECT 1 FROM accounts_user WHERE id = {user} FOR UPDATE",
    "saved user": "UPDATE accounts_user SET first_name = 'x' WHERE id = {user}",
}


@pytest.fixture
def writer() -> Iterator[UsageWriter]:
    found = UsageWriter()
    yield found
    found.close()


@contextmanager
def holding(*statements: str) -> Iterator[Any]:
    """A transaction of somebody else, who has executed these statements and goes on with something else."""
    other = connection.copy()
    other.set_autocommit(False)
    try:
        with other.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        yield other
    finally:
        other.rollback()
        other.close()


def row_of(caller: Caller, what: str) -> str:
    statement = {**ROWS, **PARENTS}[what]
    return statement.format(user=caller.user.pk, token=caller.token.pk, reservation=caller.reservation)


def put(writer: UsageWriter, *works: PendingWork) -> None:
    for work in works:
        writer._put(work)


def wait_for(*works: PendingRecord | PendingReservation) -> None:
    futures = [work.future for work in works if work.future is not None]
    assert len(futures) == len(works)
    LOOP.run_until_complete(asyncio.wait_for(asyncio.gather(*futures), 60))


def is_done(*works: PendingRecord | PendingReservation) -> list[bool]:
    LOOP.run_until_complete(asyncio.sleep(0))
    return [work.future is not None and work.future.done() for work in works]


def with_budget(live: Portal, writer: UsageWriter) -> Caller:
    from relay.models import Budget

    caller = Caller(live)
    budget = Budget.objects.create(token=caller.token, period="day", limit=1)
    movements.set_budget(budget)
    LedgerAccount.objects.filter(kind="budget", token=caller.token).update(granted=NANO)
    write(writer, caller.reserve(10 * NEED))
    assert caller.held == 10 * NEED
    return caller


def entries_of(caller: Caller) -> list[tuple[str, int]]:
    return list(LedgerEntry.objects.filter(user=caller.user).order_by("pk").values_list("kind", "amount"))[2:]


@pytest.mark.parametrize("what", ROWS)
def test_only_the_user_of_a_locked_row_waits(live: Portal, writer: UsageWriter, what: str) -> None:
    mine, theirs = with_budget(live, writer), with_budget(live, writer)
    first, more = mine.record(100, awaited=True), mine.reserve(NEED)
    others: list[PendingRecord | PendingReservation] = [theirs.record(300, awaited=True), theirs.reserve(2 * NEED)]
    with holding(row_of(mine, what)):
        put(writer, first, others[0], more, others[1], PendingProlongation("host:1:2:x"))
        wait_for(*others)
        second = mine.record(200, awaited=True)
        late = [theirs.record(400, awaited=True), theirs.record(0, awaited=True)]
        put(writer, mine.release(1), second, *late)
        wait_for(*late)
        assert is_done(first, more, second) == [False] * 3 and writer._locked.pending == 4
    wait_for(first, more, second)
    assert not writer._locked.pending and writer.faults == 0
    assert entries_of(mine) == [("usage", 100), ("reserve", NEED), ("usage", 200), ("release", 1)] or entries_of(
        mine
    ) == [("usage", 100), ("usage", 200), ("release", 1), ("reserve", NEED)]
    assert (mine.held, theirs.held) == (11 * NEED - 301, 12 * NEED - 700)
    assert (wallet(mine.user).used, wallet(theirs.user).used) == (300, 700)
    assert UsageRecord.objects.filter(user__in=[mine.user, theirs.user]).count() == 5
    assert verify().clean


@pytest.mark.parametrize("what", PARENTS)
def test_what_a_row_refers_to_is_locked(live: Portal, writer: UsageWriter, what: str) -> None:
    mine, theirs = with_budget(live, writer), with_budget(live, writer)

    def storing(caller: Caller) -> PendingRecord:
        record = caller.record(100, awaited=True)
        record.rows = (answer(caller.user, live.name("resp")),)
        return record

    others = [storing(theirs) for _ in range(3)]
    with holding(row_of(mine, what)):
        stored = storing(mine)
        put(writer, stored, *others)
        wait_for(*others)
    wait_for(stored)
    assert StoredResponse.objects.filter(user__in=[mine.user, theirs.user]).count() == 4
    assert (wallet(mine.user).used, wallet(theirs.user).used) == (100, 300) and verify().clean


def test_many_users_of_whom_one_transaction_locks_one_after_another(live: Portal, writer: UsageWriter) -> None:
    """As an action on a list in the admin does."""
    callers = [with_budget(live, writer) for _ in range(8)]
    free = callers.pop()
    waiting: list[PendingRecord] = []
    with holding() as other:
        for caller in callers:
            with other.cursor() as cursor:
                cursor.execute(row_of(caller, "top-up"))
            waiting.append(caller.record(100, awaited=True))
            there = free.record(10, awaited=True)
            put(writer, waiting[-1], there)
            wait_for(there)
        assert is_done(*waiting) == [False] * len(waiting)
        other.commit()
    wait_for(*waiting)
    assert [wallet(caller.user).used for caller in callers] == [100] * 7 and verify().clean


def test_who_waits_too_long_is_refused_and_nobody_else(
    live: Portal, writer: UsageWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locked, "_REFUSING_SECONDS", 0.0)
    monkeypatch.setattr(locked, "_RESERVATION_SECONDS", 0.0)
    mine, theirs = with_budget(live, writer), with_budget(live, writer)
    order, record = mine.reserve(), mine.record(100, awaited=True)
    with holding(row_of(mine, "wallet")):
        put(writer, order, record)
        with pytest.raises(RelayUnavailable) as refused:
            wait_for(order)
        assert refused.value.retry_after
        until(lambda: _refuses(writer, mine))
        writer.admit()
        writer.admit_user(theirs.user.pk)
        assert is_done(record) == [False], "it is charged, since the answer may have been given"
    wait_for(record)
    until(lambda: not _refuses(writer, mine))
    assert (wallet(mine.user).used, mine.held) == (100, 10 * NEED - 100) and verify().clean


def _refuses(writer: UsageWriter, caller: Caller) -> bool:
    try:
        writer.admit_user(caller.user.pk)
    except RelayUnavailable:
        return True
    return False


def test_an_answer_is_given_up_while_its_user_waits(live: Portal, writer: UsageWriter) -> None:
    mine = with_budget(live, writer)
    record = mine.record(100, awaited=True)
    with holding(row_of(mine, "wallet")):
        put(writer, record)
        until(lambda: writer._locked.pending == 1)
        assert writer._commits.withdraw(record, (*record.row[:1], *mine.record(0).row[1:])), "it has not been fixed"
    wait_for(record)
    assert wallet(mine.user).used == 0 and UsageRecord.objects.get(user=mine.user).cost == 0
    assert verify().clean


def test_a_table_that_is_locked_is_the_database(live: Portal, writer: UsageWriter) -> None:
    """As by a migration: nobody can be booked, so that the process stops taking requests."""
    callers = [with_budget(live, writer) for _ in range(6)]
    write(writer, PendingProlongation(""))
    records = [caller.record(100, awaited=True) for caller in callers]
    table = (
        "LOCK TABLE relay_usagerecord IN ACCESS EXCLUSIVE MODE"
        if IS_POSTGRESQL
        else "LOCK TABLES relay_usagerecord WRITE"
    )
    with holding(table) as other:
        put(writer, *records)
        until(lambda: writer._failing_since)
        if IS_MARIADB:
            with other.cursor() as cursor:
                cursor.execute("UNLOCK TABLES")
    wait_for(*records)
    assert [wallet(caller.user).used for caller in callers] == [100] * 6 and verify().clean


def test_a_stop_waits_for_a_lock_that_is_given_up(live: Portal) -> None:
    writer = UsageWriter()
    mine = with_budget(live, writer)
    record = mine.record(100)
    with holding(row_of(mine, "wallet")) as other:
        put(writer, record)
        until(lambda: writer._locked.pending == 1)
        writer._queue.put(None)
        assert writer._thread is not None and writer._thread.is_alive()
        other.rollback()
        writer._thread.join(30)
    assert wallet(mine.user).used == 100


def test_a_deadlock_costs_nobody_an_answer(live: Portal, writer: UsageWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database ends one of two transactions that wait for each other; the batch of the writer is written again."""
    from django.db import OperationalError

    one, other = Caller(live), Caller(live)
    write(writer, one.reserve(), other.reserve())
    commits = writer._commits
    failed: list[bool] = []
    write_once = commits._write

    def deadlocked(*arguments: Any) -> None:
        if not failed:
            failed.append(True)
            cause = Exception(1213)
            cause.sqlstate = "40P01"  # type: ignore[attr-defined]
            raise OperationalError from cause
        write_once(*arguments)

    monkeypatch.setattr(commits, "_write", deadlocked)
    records = [one.record(100), other.record(200)]
    order = one.reserve()
    write(writer, *records, order)
    assert order.result is not None and order.result.granted == NEED and writer.faults == 0
    assert (wallet(one.user).used, wallet(other.user).used) == (100, 200) and verify().clean


def test_expired_reservations_of_others_are_released(live: Portal, writer: UsageWriter) -> None:
    callers = [Caller(live) for _ in range(3)]
    write(writer, *(caller.reserve() for caller in callers))
    mine = Reservation.objects.filter(id__in=[caller.reservation for caller in callers])
    mine.update(expires_at=1)
    with holding(row_of(callers[0], "wallet"), row_of(callers[1], "reservation")):
        requests.release_expired(2)
        assert [caller.held for caller in callers] == [NEED, NEED, 0]
    requests.release_expired(2)
    assert not mine.exists() and verify().clean


def test_those_who_only_read_lock_nothing(live: Portal, writer: UsageWriter) -> None:
    mine = with_budget(live, writer)
    with consistent_read():
        assert verify_reads()
        record, order = mine.record(100, awaited=True), mine.reserve()
        put(writer, record, order)
        wait_for(record, order)
    call_command("ledger", "verify")


def verify_reads() -> Sequence[int]:
    return list(LedgerAccount.objects.values_list("pk", flat=True))


def test_what_clients_see(live: Portal, server: Server) -> None:
    mine, theirs = live.user(balance=NANO), live.user(balance=NANO)
    tokens = [live.token(mine), live.token(theirs)]
    model = live.model(price={"input": 1, "output": 1})
    assert [server.post(token, ask(model, max_tokens=7)).status_code for token in tokens] == [200, 200]
    statement = ROWS["wallet"].format(user=mine.pk)
    until(lambda: not Reservation.objects.filter(user=mine).exists())  # so that the next request has to ask for money
    with holding(statement):
        refused = server.post(tokens[0], ask(model, max_tokens=7))
        assert refused.status_code == 503 and refused.headers["retry-after"], refused.text
        for _ in range(3):
            assert server.post(tokens[1], ask(model, max_tokens=7)).status_code == 200
        assert server.post(tokens[0], ask(model, max_tokens=7)).status_code == 503
    until(lambda: server.post(tokens[0], ask(model, max_tokens=7)).status_code == 200)
    assert verify().clean
