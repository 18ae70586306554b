"""A PostgreSQL that hangs, or does not give a lock: every wait for it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from django.db import connection

from accounts.transactions import patient_read
from portal import limits
from portal.management.command_line import unhurried
from portal.services import postgresql
from portal.services.databases import from_url
from portal.services.postgresql import BoundedConnection
from portal.services.timeouts import statement_timeout
from tests.services.stalled import Stalled, stalled
from tests.support.asserts import until
from tests.support.environment import DATABASE_URL, IS_POSTGRESQL
from tests.support.portal import Portal, ask
from tests.support.server import serving

pytestmark = pytest.mark.shared


def batch_line(model: str) -> bytes:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": ask(model)}
    return json.dumps(line).encode()


needs_postgresql = pytest.mark.skipif(not IS_POSTGRESQL, reason="asks PostgreSQL")


def test_a_server_that_accepts_and_says_nothing() -> None:
    with stalled() as server, pytest.raises(psycopg.OperationalError, match="timeout expired"):
        BoundedConnection.connect(f"host=127.0.0.1 port={server.port} connect_timeout=2")


@pytest.fixture
def behind() -> Iterator[tuple[Stalled, str]]:
    """A way to the suite's server that can be frozen, and the address of its end."""
    parts = urlsplit(DATABASE_URL)
    with stalled((parts.hostname or "", parts.port or 5432)) as way:
        yield way, DATABASE_URL.replace(f":{parts.port}/", f":{way.port}/")


@needs_postgresql
def test_a_server_that_stops_in_the_middle(behind: tuple[Stalled, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "_CANCEL_SECONDS", 0.2)
    way, url = behind
    connection = BoundedConnection.connect(url, autocommit=True)
    with statement_timeout(0.2):
        assert connection.execute("SELECT 1").fetchone() == (1,)
        way.freeze()
        with pytest.raises(psycopg.OperationalError, match="did not answer within"):
            connection.execute("SELECT 1")
    assert connection.closed, "nobody is given a connection on which an old answer may still come"
    way.thaw()
    with BoundedConnection.connect(url) as again:
        assert again.execute("SELECT 1").fetchone() == (1,)


@needs_postgresql
def test_a_lock_that_is_not_given_up_and_what_waits_for_it_is_stopped() -> None:
    with BoundedConnection.connect(DATABASE_URL, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(20261129)")
        waiting = BoundedConnection.connect(DATABASE_URL, autocommit=True)
        pid = waiting.info.backend_pid
        with statement_timeout(0.2), pytest.raises(psycopg.OperationalError):
            waiting.execute("SELECT pg_advisory_lock(20261129)")
        for _ in range(1000):
            row = holder.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone()
            if row is None or row[0] != "active":
                break
        assert row is None or row[0] != "active", "the server still works on what nobody waits for"


@needs_postgresql
def test_a_command_waits_as_long_as_the_server_answers_others(
    behind: tuple[Stalled, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(postgresql, "_CANCEL_SECONDS", 0.2)
    monkeypatch.setattr(limits, "DATABASE_SECONDS", 2)
    way, url = behind
    with statement_timeout(None):
        connection = BoundedConnection.connect(url, autocommit=True)
        connection.execute("SELECT pg_sleep(0.5)")
        way.freeze()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert connection.closed


@needs_postgresql
def test_a_process_that_is_stopped_in_a_transaction_loses_its_locks() -> None:
    options = from_url(DATABASE_URL, 2)["OPTIONS"]["pool"]
    connection = options["connection_class"].connect(DATABASE_URL, autocommit=True)
    assert connection.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("1min",)
    connection.close()


@needs_postgresql
def test_who_comes_back_to_a_transaction_that_was_ended_meanwhile() -> None:
    """As after a pause of the machine: it is the connection that failed, not what is to be written."""
    with BoundedConnection.connect(DATABASE_URL, autocommit=True) as other:
        paused = BoundedConnection.connect(DATABASE_URL)
        paused.execute("SET idle_in_transaction_session_timeout = '50ms'")
        pid = paused.info.backend_pid
        until(lambda: other.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone() is None)
        with pytest.raises(psycopg.OperationalError, match="idle-in-transaction"):
            paused.execute("SELECT 1")
        assert paused.closed


@needs_postgresql
@pytest.mark.django_db(transaction=True)
def test_a_command_may_pause_for_longer_within_a_transaction() -> None:
    def limit() -> str:
        with connection.cursor() as cursor:
            cursor.execute("SHOW idle_in_transaction_session_timeout")
            return str(cursor.fetchone()[0])

    assert limit() == "1min"
    with unhurried():
        assert limit() == "1h"
        connection.close()
        assert limit() == "1h", "on another connection, too"
        with patient_read():  # beside a dump, or a copy, that takes longer
            assert limit() == "0"
        assert limit() == "1h"
    assert limit() == "1min", "what serves gets none of these connections"


@needs_postgresql
def test_threads_that_have_worked_keep_no_connection(live: Portal, tmp_path: Path) -> None:
    """With one connection beside those of the change feed and the ledger's writer, everything goes on."""
    token, model = live.token(), live.model()
    headers = {"authorization": f"Bearer {token}"}
    env = {"AIRELAYS_DATABASE_CONNECTIONS": "3", "AIRELAYS_FEED_POLL_SECONDS": "0.05"}
    with serving(tmp_path / "log", env=env) as own, ThreadPoolExecutor(4) as clients:

        def store(number: int) -> str:
            file = {"file": (f"{number}.jsonl", batch_line(model), "application/jsonl")}
            made = httpx.post(f"{own.v1}/files", data={"purpose": "batch"}, files=file, headers=headers, timeout=60)
            assert made.status_code == 200, made.text
            return str(made.json()["id"])

        def batch(file: str) -> str:
            body = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
            return str(httpx.post(f"{own.v1}/batches", json=body, headers=headers, timeout=60).json()["id"])

        def done(name: str) -> bool:
            return bool(own.get(token, f"/v1/batches/{name}").json()["status"] == "completed")

        made = list(clients.map(batch, clients.map(store, range(4))))
        until(lambda: all(done(name) for name in made))
        assert httpx.get(f"{own.url}/readyz", timeout=30).status_code == 200
        assert own.post(live.token(), ask(model)).status_code == 200
    assert "couldn't get a connection" not in (tmp_path / "log").read_text()
