"""A PostgreSQL that hangs, or does not give a lock: every wait for it ends."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest

from portal import limits
from portal.services import postgresql
from portal.services.databases import from_url
from portal.services.postgresql import BoundedConnection
from portal.services.timeouts import statement_timeout
from tests.services.stalled import Stalled, stalled
from tests.support.environment import DATABASE_URL

pytestmark = pytest.mark.shared
needs_postgresql = pytest.mark.skipif(not DATABASE_URL, reason="asks PostgreSQL")


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
