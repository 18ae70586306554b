"""Records that are withdrawn since their answer is not given: charged nothing, unless they were committed before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError

from portal.lib.money import NANO
from relay.billing.ledger import movements
from relay.billing.ledger.lines import Charge, Charged, SpendScope
from relay.billing.ledger.pending import PendingRecord, Settlement, UsageRow
from relay.billing.ledger.rows import insert
from relay.billing.ledger.sql import LedgerSql
from relay.billing.ledger.verify import verify
from relay.billing.ledger.writer import UsageWriter
from relay.models import LedgerEntry, StoredResponse, UsageRecord
from tests.support.money import usage_row, wallet
from tests.support.portal import Portal

pytestmark = pytest.mark.shared

COST = 300


class Charging:
    """A writer, a record of a user with a dollar, and what is told of its charge."""

    def __init__(self, live: Portal, loop: asyncio.AbstractEventLoop) -> None:
        from relay.models import Token

        self.writer, self.user = UsageWriter(), live.user(balance=NANO)
        live.token(self.user)
        token = Token.objects.get(user=self.user)
        self.scope = SpendScope(self.user.pk, token.pk, movements.today())
        self.told: list[Charged | None] = []
        self.request_id = live.name("req_")
        charge = Charge(self.request_id, COST, 0, False, time.time())
        settlement = Settlement("", self.scope, charge, self.told.append)
        self.record = PendingRecord(self.row(COST), settlement, loop.create_future(), loop, (self.stored(live),))
        self.withdrawn: list[bool] = []

    def row(self, cost: int, status: int = 200) -> UsageRow:
        values = {"user_id": self.user.pk, "token_id": self.scope.token_id, "attempt_log": "[]"}
        return usage_row(
            request_id=self.request_id, started_at=time.time(), cost=cost, status=status, latency_ms=1, **values
        )

    def stored(self, live: Portal) -> Any:
        from relay.billing.ledger.rows import Moment

        now = Moment(time.time())
        empty = dict.fromkeys(("previous_id", "conversation_id", "input", "owner", "upstream_id"), "")
        return insert(
            StoredResponse,
            user_id=self.user.pk,
            response_id=live.name("resp_"),
            request_id=self.request_id,
            model="m",
            status="completed",
            body="{}",
            upstream_keeps=False,
            created_at=now,
            expires_at=now,
            **empty,
        )

    def withdraw(self) -> None:
        if not self.withdrawn:
            self.withdrawn.append(self.writer._commits.withdraw(self.record, self.row(0, 503)))

    def write(self, loop: asyncio.AbstractEventLoop) -> UsageRecord:
        self.writer._write([self.record])
        loop.run_until_complete(asyncio.sleep(0))
        assert self.record.future is not None and self.record.future.done()
        return UsageRecord.objects.get(request_id=self.request_id)

    def assert_charged(self, found: UsageRecord, charged: bool) -> None:
        user = self.user
        assert (found.status, found.cost) == ((200, COST) if charged else (503, 0))
        assert wallet(user).used == (COST if charged else 0)
        assert LedgerEntry.objects.filter(user=user, kind="usage").count() == charged
        assert StoredResponse.objects.filter(user=user).count() == charged
        assert len(self.told) == 1 and self.told[0] is not None
        assert verify().clean


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    found = asyncio.new_event_loop()
    yield found
    found.close()


@pytest.fixture
def charging(live: Portal, loop: asyncio.AbstractEventLoop) -> Charging:
    return Charging(live, loop)


def at_commit(monkeypatch: pytest.MonkeyPatch, do: Callable[[Callable[[], Any]], Any]) -> None:
    """`do(commit)` is called in the place of the first COMMIT."""
    run = LedgerSql.run
    calls: list[str] = []

    def patched(db: LedgerSql, sql: str, values: Any = ()) -> Any:
        if sql == "COMMIT" and not calls:
            calls.append(sql)
            return do(lambda: run(db, sql, values))
        return run(db, sql, values)

    monkeypatch.setattr(LedgerSql, "run", patched)


def test_a_record_that_waits_for_its_transaction_is_withdrawn(
    charging: Charging, loop: asyncio.AbstractEventLoop
) -> None:
    charging.withdraw()
    charging.assert_charged(charging.write(loop), False)
    assert charging.withdrawn == [True]


def test_a_record_is_withdrawn_in_the_middle_of_its_transaction(
    charging: Charging, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = LedgerSql.write

    def patched(db: LedgerSql, entries: Any) -> None:
        write(db, entries)
        charging.withdraw()

    monkeypatch.setattr(LedgerSql, "write", patched)
    charging.assert_charged(charging.write(loop), False)
    assert charging.withdrawn == [True]


def test_a_record_whose_commit_was_sent_is_not_withdrawn(
    charging: Charging, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def do(commit: Callable[[], Any]) -> Any:
        charging.withdraw()
        return commit()

    at_commit(monkeypatch, do)
    charging.assert_charged(charging.write(loop), True)
    assert charging.withdrawn == [False]


@pytest.mark.parametrize("arrived", [True, False])
def test_a_commit_of_which_nothing_is_heard_decides_once_it_is_looked_up(
    charging: Charging, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch, arrived: bool
) -> None:
    """Until then it can be on disk; one that is not there can be withdrawn again."""
    tries: list[bool] = []

    def do(commit: Callable[[], Any]) -> Any:
        if arrived:
            commit()
        raise OperationalError("the connection was lost")

    def pause(seconds: float) -> None:
        tries.append(charging.writer._commits.withdraw(charging.record, charging.row(0, 503)))

    at_commit(monkeypatch, do)
    monkeypatch.setattr(time, "sleep", pause)
    charging.assert_charged(charging.write(loop), True)
    assert tries == [False]


def test_one_that_was_not_written_can_be_withdrawn_again(
    charging: Charging, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def do(commit: Callable[[], Any]) -> Any:
        raise OperationalError("the connection was lost")

    already = charging.writer._commits._already_written
    settle = charging.writer._commits._settle_user

    def settled(*arguments: Any) -> None:
        settle(*arguments)
        if looked:
            charging.withdraw()

    looked: list[bool] = []

    def look(records: Any) -> set[str]:
        looked.append(True)
        return already(records)

    at_commit(monkeypatch, do)
    monkeypatch.setattr(charging.writer._commits, "_already_written", look)
    monkeypatch.setattr(charging.writer._commits, "_settle_user", settled)
    charging.assert_charged(charging.write(loop), False)
    assert charging.withdrawn == [True]
