"""A move copies one state of the database, goes on where it was interrupted, and writes over nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper

from accounts.models import AuditEvent, User
from portal.installation.lock import FolderLock
from portal.lib import clock
from portal.move import comparison, references
from portal.move import move as moves
from portal.move.move import MoveRefused, move
from portal.move.progress import Progress, is_unfinished
from portal.move.rows import RowRefused, _storable
from portal.move.tables import all_tables
from portal.services.other_database import as_default, connect_sqlite, connect_url
from relay.models import ClientSecret, Pool, Token, UsageRecord
from relay.usage.demo_data import SeedPlan, seed
from tests.support import environment
from tests.support.portal import People

pytestmark = pytest.mark.shared


def silent(table: str, rows: int) -> None:
    """Nobody watches."""


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.DATA_DIR = tmp_path
    return tmp_path


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_server_that_is_not_there_is_said_with_what_to_do(scheme: str, db: None) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        said = moves.connects(connect_url(f"{scheme}://one:pass@127.0.0.1:{nobody.getsockname()[1]}/new"))
    assert "refused" in said and said.endswith("Start it, or correct host and port in the URL.")
    assert "pass" not in said and "\n" not in said and "(2003" not in said


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: Any, django_db_setup: None) -> Path:
    """A copy that has been begun, with its tables: to make them takes longest."""
    folder = tmp_path_factory.mktemp("copy")
    environment.new_sqlite(folder)
    made = connect_sqlite(folder / "state.sqlite3")
    with django_db_blocker.unblock():
        begin(made)
        made.close()
    return folder / "state.sqlite3"


def begin(made: BaseDatabaseWrapper) -> None:
    Progress(made).begin({**moves._facts(), "migrated": "yes"})


@pytest.fixture
def target(folder: Path, begun: Path) -> Iterator[BaseDatabaseWrapper]:
    shutil.copy(begun, folder / "state.sqlite3")
    made = connect_sqlite(folder / "state.sqlite3")
    yield made
    made.close()


def counted(database: BaseDatabaseWrapper) -> dict[str, int]:
    return comparison.rows_by_table(database, all_tables())


def test_a_whole_portal_is_copied_in_two_runs(db: None, target: Any, folder: Path) -> None:
    UsageRecord.objects.all().delete()
    User.objects.update(is_superuser=True)  # administrators may be there
    seed(SeedPlan(users=5, tokens=8, requests=400, days=4))
    one, other = User.objects.filter(is_superuser=False).order_by("pk")[:2]
    gone = Pool.objects.create(name="gone")
    gone_pk = gone.pk
    gone.delete()
    event = AuditEvent.objects.create(action="test", detail={"face": "😀", "n": [1, None, 2.5]})
    now, any_token = clock.now(), Token.objects.order_by("pk")[0]
    ClientSecret.objects.create(  # a row with a column that the database works out
        digest="d" * 64, user=one, token=any_token, session="{}", created_at=now, expires_at=now + timedelta(days=1)
    )

    lock = FolderLock(folder)
    lock.hold()
    first = move(target, "the copy", silent)
    assert not first.finished and is_unfinished(target) and first.copied == first.rows
    target.close()

    name = one.username
    User.objects.filter(pk=one.pk).update(username="another")
    User.objects.filter(pk=other.pk).update(username=name)
    UsageRecord.objects.filter(pk=UsageRecord.objects.filter(cost=0).values_list("pk", flat=True)[0]).delete()
    late: Any = UsageRecord.objects.order_by("-pk").values().first()
    late.pop("id")
    UsageRecord.objects.create(**{**late, "request_id": "req_late", "cost": 0, "shortfall": 0, "user_id": None})
    second = move(target, "the copy", silent)
    assert not second.finished and 0 < second.copied < second.rows
    target.close()
    lock.release()

    last = move(target, "the copy", silent)
    assert last.finished and not is_unfinished(target) and last.copied == 0
    assert counted(target) == counted(connection)
    with as_default(target):
        assert User.objects.get(pk=other.pk).username == name
        found = AuditEvent.objects.get(pk=event.pk)
        assert (found.action, found.detail, found.at) == ("test", event.detail, event.at)
        assert UsageRecord.objects.filter(request_id="req_late").exists() and Token.objects.count() > 0
        assert Pool.objects.create(name="new").pk > gone_pk  # never the number of a row that is gone
    with pytest.raises(MoveRefused, match=r"not empty.* holds a portal: if a move has finished there"):
        move(target, "the copy", silent)


def test_a_run_that_was_killed_at_its_beginning_or_at_its_end_is_gone_on_with(
    db: None, target: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with target.cursor() as cursor:
        cursor.execute("DROP TABLE airelays_move_window")  # the end has two steps
    assert move(target, "the copy", silent).finished

    made = connect_sqlite(folder / "new.sqlite3")
    migrated: list[str] = []
    monkeypatch.setattr(moves, "call_command", lambda name, **_options: migrated.append(name))
    progress = Progress(made)
    with made.cursor() as cursor, as_default(made):
        progress.begin({})  # nothing has been noted yet
        cursor.execute("DROP TABLE airelays_move_window")
        moves._begin(made, "the copy", progress)
        assert progress.facts("") == {**moves._facts(), "migrated": "yes"} and migrated == ["migrate"]

        # Without transactions for tables an interrupted migration leaves some of them.
        cursor.execute("DELETE FROM airelays_move WHERE name = 'migrated'")
        cursor.execute("CREATE TABLE half (id INTEGER PRIMARY KEY)")
        monkeypatch.setattr(made.features, "can_rollback_ddl", False)
        moves._begin(made, "the copy", progress)
        assert progress.is_bare() and progress.fact("migrated") and migrated == ["migrate"] * 2
        cursor.execute("CREATE TABLE whole (id INTEGER PRIMARY KEY)")
        moves._begin(made, "the copy", progress)
        assert not progress.is_bare() and len(migrated) == 2
    made.close()


def test_references_have_their_names_again(db: None) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("elsewhere references stay where they are")

    def there() -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(references._OF_POSTGRESQL)
            return list(cursor.fetchall())

    before, progress = there(), Progress(connection)
    assert any(len(name) > 54 for _table, name, _definition in before)
    progress.begin({})
    references.suspend(connection, progress)
    assert not there()
    references.restore(connection, progress)
    assert there() == before


def test_the_copy_of_another_installation_is_left_alone(db: None, target: Any, settings: Any, folder: Path) -> None:
    lock = FolderLock(folder)
    lock.hold()
    move(target, "the copy", silent)
    target.close()
    settings.TOKEN_KEY = b"the key of another installation"
    with pytest.raises(MoveRefused, match="another installation"):
        move(target, "the copy", silent)
    lock.release()


def _a_request() -> None:
    UsageRecord.objects.create(
        request_id="req_meanwhile", started_at=clock.now(), model="m", endpoint="chat.completions",
        streamed=False, status=200, end_reason="completed", usage_source="none", latency_ms=1,
    )  # fmt: skip


def _a_batch_of_an_import() -> None:
    AuditEvent.objects.create(action="import.create", detail={})


@pytest.mark.parametrize("write", [_a_request, _a_batch_of_an_import])
def test_what_is_written_during_the_last_run_keeps_it_from_ending(
    db: None, people: People, target: Any, monkeypatch: pytest.MonkeyPatch, write: Any
) -> None:
    monkeypatch.setattr(moves, "_workers", lambda: False)
    compare = comparison.differences

    def meanwhile(source: Any, there: Any, tables: Any) -> list[str]:
        found = compare(source, there, tables)
        with as_default(source):
            write()
        return found

    monkeypatch.setattr(comparison, "differences", meanwhile)
    assert not move(target, "the copy", silent).finished and is_unfinished(target)


def test_a_worker_elsewhere_keeps_a_move_from_ending(db: None, settings: Any) -> None:
    from relay.models import Worker

    def seen(host: str, pid: int, seconds: int) -> None:
        Worker.objects.all().delete()
        at = clock.now() - timedelta(seconds=seconds)
        Worker.objects.create(name="w", host=host, pid=pid, started_at=at, seen_at=at)

    here = socket.gethostname()
    for host, pid, seconds, there in (
        ("elsewhere", 1, 10, True),
        ("elsewhere", 1, 200, False),
        (here, os.getpid(), 10, True),
        (here, 2**22 + 1, 10, False),
    ):
        seen(host, pid, seconds)
        assert moves._workers() is there, (host, pid, seconds)


def test_a_row_that_is_not_taken_is_named(db: None, people: People, target: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE accounts_user SET email = %s WHERE id = %s", ["x", people.owner.pk])
    done = move(target, "the copy", silent)
    assert done.finished
    from portal.move.rows import RowWriter
    from portal.move.tables import Table, read_window

    table = Table(User)
    rows = read_window(connection, table, people.owner.pk - people.owner.pk % table.width)
    with as_default(target), pytest.raises(RowRefused, match=r"does not take row \d+ of accounts_user"):
        from django.db import transaction

        with transaction.atomic():
            RowWriter(table, connection, target).write(rows)  # they are there already


def test_one_move_at_a_time(db: None, target: Any, folder: Path) -> None:
    other = moves._only_move(folder)
    with pytest.raises(MoveRefused, match="Another move"):
        move(target, "the copy", silent)
    os.close(other)


def test_a_run_that_is_killed_is_gone_on_with(tmp_path: Path) -> None:
    """From SQLite to SQLite, in processes: what was committed before the kill is not copied again."""
    code = (
        "import os, sys, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'portal.settings'; django.setup()\n"
        "from pathlib import Path\n"
        "from django.core.management import call_command\n"
        "from portal.move import move as moves\n"
        "from portal.move.progress import Progress\n"
        "from portal.services.other_database import connect_sqlite\n"
        "copy = connect_sqlite(Path(sys.argv[2]))\n"
        "if sys.argv[1] == 'kill':\n"
        "    call_command('seed', users=3, tokens=3, requests=9000, days=3)\n"
        "    Progress(copy).begin({**moves._facts(), 'migrated': 'yes'})\n"
        "def tell(table, rows):\n"
        "    if sys.argv[1] == 'kill' and table == 'relay_usagerecord': os.kill(os.getpid(), 9)\n"
        "done = moves.move(copy, 'the copy', tell)\n"
        "print(done.finished, done.copied, done.rows)\n"
    )
    environment.new_sqlite(tmp_path / "d")
    environment.new_sqlite(tmp_path / "copy")
    copied_to = tmp_path / "copy" / "state.sqlite3"
    variables = {
        **os.environ, "AIRELAYS_DATA_DIR": str(tmp_path / "d"), "AIRELAYS_DATABASE_URL": "",
        "AIRELAYS_SHARED_DATA_DIR": "false",
    }  # fmt: skip

    def run(word: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, word, str(copied_to)],
            env=variables, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    assert run("kill").returncode == -signal.SIGKILL
    finished, copied, rows = run("go on").stdout.split()
    assert finished == "True" and 0 < int(copied) < 9000 < int(rows)
    with contextlib.closing(sqlite3.connect(copied_to)) as copy:
        assert copy.execute("SELECT count(DISTINCT request_id) FROM relay_usagerecord").fetchone() == (9000,)


def test_what_postgresql_cannot_store_is_replaced() -> None:
    assert _storable("a\x00b", False) == "a�b" and _storable("", False) == "" and _storable(None, True) is None
    assert _storable('{"a": ["x\\u0000y", "\\ud800", 1.5, null], "c\\u0000": "\\ud83d\\ude00"}', True) == (
        '{"a": ["x�y", "�", 1.5, null], "c�": "😀"}'
    )
