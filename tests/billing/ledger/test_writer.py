"""New requests while the database hangs or fails: none that could not be recorded, and again as soon as it can be."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from django.db import OperationalError

from portal.services.timeouts import refusals
from relay.billing.ledger import writer as module
from relay.billing.ledger.lines import SpendScope
from relay.billing.ledger.writer import UsageWriter
from relay.errors import RelayUnavailable
from tests.support.asserts import until


def refuses(writer: UsageWriter) -> bool:
    try:
        writer.admit()
    except RelayUnavailable:
        return True
    return False


def test_a_commit_that_hangs_refuses_new_requests_before_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    writer, go = UsageWriter(), threading.Event()
    monkeypatch.setattr(module, "_SLOW_SECONDS", 0.05)
    monkeypatch.setattr(writer, "_commit", lambda *_: go.wait())
    assert not refuses(writer)
    writer.release("reservation", SpendScope(1, 1, 1))
    until(lambda: refuses(writer))
    go.set()
    until(lambda: not refuses(writer))
    writer.close()


@pytest.mark.parametrize(
    ("running", "arriving", "waits"),
    [
        (200, True, 50),  # until a quarter of them is there
        (200, False, 3),  # idle streams keep nobody waiting
        (4, True, 1),
    ],
)
def test_a_batch_is_added_to_while_more_of_what_is_running_arrives(
    monkeypatch: pytest.MonkeyPatch, running: int, arriving: bool, waits: int
) -> None:
    writer, slept = UsageWriter(), [0]
    writer.in_flight = lambda: running
    writer._pending = 2
    monkeypatch.setattr(module, "_MOST_DELAY", 3600)

    def sleep(seconds: float) -> None:
        slept[0] += 1
        writer._pending += arriving

    monkeypatch.setattr(time, "sleep", sleep)
    writer._gather()
    assert slept[0] <= waits and (not arriving or writer._pending >= running // 4)


def test_what_is_refused_since_the_database_hangs_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    writer, before = UsageWriter(), refusals.number
    writer._failing_since = time.monotonic() - 60
    assert refuses(writer) and refusals.number == before + 1 and writer.waiting == 0


def test_a_database_that_is_back_is_noticed_without_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only reservations and releases failed, which are not repeated; and new requests, which would be the next work,
    are refused until it is noticed.
    """
    writer, away = UsageWriter(), threading.Event()
    away.set()
    monkeypatch.setattr(module, "_TRY_SECONDS", 0.01)

    def commit(*_: Any) -> None:
        if away.is_set():
            raise OperationalError("the server did not answer within 10 seconds")

    monkeypatch.setattr(writer, "_commit", commit)
    writer.release("reservation", SpendScope(1, 1, 1))
    until(lambda: writer._failing_since)
    writer._failing_since = time.monotonic() - 60
    assert refuses(writer)
    away.clear()
    until(lambda: not refuses(writer))
    assert writer._pending == 0
    writer.close()
