"""The health endpoints."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from portal.serving import health

pytestmark = pytest.mark.shared


def test_health(db: None) -> None:
    assert Client().get("/healthz").json()["ok"] is True
    assert Client().get("/readyz").json()["ready"] is True


def test_a_database_that_takes_no_writes_is_not_ready(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk: every request that is to be paid for would be refused."""
    monkeypatch.setattr(health, "_tried_at", float("-inf"))
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY" if connection.vendor == "postgresql" else "PRAGMA query_only=ON")
    try:
        refused = Client().get("/readyz")
        again = Client().get("/readyz")
    finally:
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute("PRAGMA query_only=OFF")
        health._tried_at = float("-inf")
    assert refused.status_code == again.status_code == 503 and "takes no writes" in refused.json()["problems"][0]
    assert Client().get("/healthz").status_code == 200


def test_readiness_is_written_once_a_second_at_most(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_tried_at", float("-inf"))
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    with CaptureQueriesContext(connection) as asked:
        for _ in range(20):
            assert Client().get("/readyz").status_code == 200
    assert len([query for query in asked if query["sql"].startswith("UPDATE")]) == 1
