"""The health endpoints."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import httpx
import pytest
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext

from portal import limits
from portal.serving.probes import health
from relay.billing.ledger.writer import writer
from tests.support.asserts import until
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.sessions import with_config

pytestmark = pytest.mark.shared


def test_health(server: Server) -> None:
    assert server.get("sk-none", "/healthz").json()["ok"] is True
    assert server.get("sk-none", "/readyz").json()["ready"] is True


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_answer_whatever_host_they_are_asked_for(server: Server, path: str) -> None:
    """Load balancers name the address of the machine. Everything but GET and HEAD goes the way of pages."""
    named = {"host": "10.0.0.7:8080"}
    assert server.get("sk-none", path, **named).status_code == 200
    assert server.get("sk-none", "/accounts/login/", **named).status_code == 400
    head = httpx.head(server.url + path, headers=named, trust_env=False, timeout=60)
    assert head.status_code == 200 and not head.content and int(head.headers["content-length"]) > 10
    assert httpx.post(server.url + path, trust_env=False, timeout=60).status_code == 403


READ_ONLY = {
    "sqlite": ("PRAGMA query_only=ON", "PRAGMA query_only=OFF"),
    "postgresql": ("SET default_transaction_read_only = on", "RESET default_transaction_read_only"),
    "mysql": ("SET SESSION TRANSACTION READ ONLY", "SET SESSION TRANSACTION READ WRITE"),
}


def test_a_database_that_takes_no_writes_is_not_ready(live: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk: every request that is to be paid for would be refused."""
    monkeypatch.setattr(health, "_tried_at", float("-inf"))
    begin, end = READ_ONLY[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(begin)
    try:
        refused, again = health._checked(), health._checked()
    finally:
        with connection.cursor() as cursor:
            cursor.execute(end)
        health._tried_at = float("-inf")
    assert refused == again and "takes no writes" in refused
    assert Client().get("/healthz").status_code == 200


async def test_a_worker_that_cannot_record_requests_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """As while a migration waits for a lock on the table of the records, although the database answers."""

    async def well() -> str:
        return ""

    async def problems() -> list[str]:
        answer = await health.readyz(RequestFactory().get("/readyz"))
        found = json.loads(answer.content)
        assert found["ready"] is (answer.status_code == 200)
        return list(found["problems"])

    monkeypatch.setattr(health, "_fault_of_database", well)
    monkeypatch.setattr(health, "_fault_of_redis", well)
    assert await problems() == []
    monkeypatch.setattr(writer, "_since", time.monotonic() - 60)  # of a commit that does not end
    assert "cannot be recorded" in (await problems())[0]


def test_readiness_is_written_once_a_second_at_most(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_tried_at", float("-inf"))
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    with CaptureQueriesContext(connection) as asked:
        for _ in range(20):
            assert health._checked() == ""
    assert len([query for query in asked if query["sql"].startswith("UPDATE")]) == 1


async def test_a_database_that_hangs_is_told_in_time(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """Also to those who ask while earlier checks have not come back."""
    go, asked = threading.Event(), []

    def hangs() -> bool:
        asked.append(1)
        return go.wait()

    monkeypatch.setattr(limits, "READY_SECONDS", 0.05)
    monkeypatch.setattr(health, "_migrated_until", float("inf"))
    monkeypatch.setattr(health, "_can_write", hangs)
    monkeypatch.setattr(health, "_running", set())  # one of another test's, whose loop has ended, would stay in it
    with_config(settings, redis_url="")
    try:
        for _ in range(health._CHECKS + 3):
            answer = await health.readyz(RequestFactory().get("/readyz"))
            assert answer.status_code == 503 and b"the database does not answer within" in answer.content
        assert until(lambda: len(asked) == health._CHECKS)
    finally:
        go.set()
    await asyncio.gather(*health._running)
    assert (await health.readyz(RequestFactory().get("/readyz"))).status_code == 200


def test_a_write_that_hangs_is_not_taken_for_the_last_one_that_went_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_written", True)
    with health._trying:
        monkeypatch.setattr(health, "_trying_since", time.monotonic())
        assert health._can_write(), "another request is trying at this moment"
        monkeypatch.setattr(health, "_trying_since", time.monotonic() - 2)
        assert not health._can_write()


def test_missing_migrations_are_looked_for_until_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = [True, True, False, True]
    monkeypatch.setattr(health, "_migrated_until", float("-inf"))
    monkeypatch.setattr(health, "migrations_missing", lambda: missing.pop(0))
    monkeypatch.setattr(health, "_can_write", lambda: True)
    found = [health._checked() for _ in range(4)]
    assert ["migrate" in one for one in found] == [True, True, False, False] and len(missing) == 1
