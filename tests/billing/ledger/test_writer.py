"""New requests while the database hangs or fails: none that could not be recorded, and again as soon as it can be."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from django.db import OperationalError

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
