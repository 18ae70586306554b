"""An error of the database ends a command of `manage.py` with one line."""

from __future__ import annotations

import logging

import pytest
from django.db import DatabaseError, InternalError, OperationalError

from portal.management import command_line
from portal.services.database_errors import told_in_one_line

BROKE = "terminating connection due to idle-in-transaction timeout\nDETAIL: and so on"


def fails(monkeypatch: pytest.MonkeyPatch, error: DatabaseError) -> None:
    def run(arguments: list[str]) -> None:
        raise error

    monkeypatch.setattr(command_line, "execute_from_command_line", run)


@pytest.mark.parametrize("command", ["start", "migrate", "ledger"])
def test_a_database_that_breaks_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], db: None, command: str
) -> None:
    fails(monkeypatch, InternalError(BROKE))
    with pytest.raises(SystemExit) as end:
        command_line.run(["manage.py", command])
    said = capsys.readouterr().err
    assert end.value.code == 1 and said.count("\n") == 1
    assert said.startswith("airelays: the database broke off: terminating connection") and "--traceback" in said


def test_who_wants_the_traceback_gets_it(monkeypatch: pytest.MonkeyPatch, db: None) -> None:
    fails(monkeypatch, InternalError(BROKE))
    with pytest.raises(InternalError):
        command_line.run(["manage.py", "start", "--traceback"])


def test_a_database_that_is_away(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Away:
        vendor = "sqlite"

        def close(self) -> None: ...

        def ensure_connection(self) -> None:
            raise OperationalError("connection refused")

    fails(monkeypatch, OperationalError("connection refused"))
    monkeypatch.setattr(command_line, "connection", Away())
    with pytest.raises(SystemExit):
        command_line.run(["manage.py", "start"])
    assert capsys.readouterr().err == (
        "airelays: the database cannot be used: connection refused. Check that it runs, that its disk has room, and "
        "AIRELAYS_DATABASE_URL.\n"
    )


def test_a_server_that_serves_tells_of_its_pool_again() -> None:
    """At the start one line says why there is no connection; the pool's own tries would be ten more."""
    pool = logging.getLogger("psycopg.pool")
    before = pool.isEnabledFor(logging.WARNING)
    with told_in_one_line():
        assert not pool.isEnabledFor(logging.WARNING)
    assert pool.isEnabledFor(logging.WARNING) is before
