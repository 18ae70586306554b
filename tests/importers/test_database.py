"""Databases of other programs are opened for reading only, whatever their schema; values as drivers give them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from relay.importers.description import SourceUnreadable
from relay.importers.one_api.source import open_source
from relay.importers.reading.database import open_database
from relay.importers.reading.row import Row, json_of, moment_of, nano_of, texts_of
from tests.support.importers.old import Old


def test_a_file_is_read_while_its_program_writes(old: Old) -> None:
    with closing(sqlite3.connect(old.path, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE users SET quota = quota + 1")
        database = open_database(str(old.path))
        assert len(list(database.rows("users", ("id", "quota")))) == 10
        writer.execute("COMMIT")
        with pytest.raises(SourceUnreadable):
            database._all("DELETE FROM users")
        database.close()
        writer.execute("UPDATE users SET quota = quota + 1")


def test_rows_come_in_pages_from_behind_a_key(old: Old) -> None:
    database = open_database(str(old.path))
    assert [row["id"] for row in database.rows("users", ("username",), page=3)] == list(range(1, 11))
    assert [row["id"] for row in database.rows("users", ("no such column",), after=8)] == [9, 10]
    assert list(database.rows("no such table", ("id",))) == [] and database.count("no such table") == 0
    database.close()


@pytest.mark.parametrize("source", ["", "/no/such/file", "ftp://x/y", "mysql://u:secret@127.0.0.1:1/x",
                                    "postgres://u:secret@127.0.0.1:1/x", "u:secret@tcp(127.0.0.1:1)/x",
                                    "u:secret@tcp(127.0.0.1:x)/x",
                                    "u:secret@tcp([::1]:1)/x", "postgres://u:p@secret@127.0.0.1:1/x",
                                    "postgres://u:secret/a@127.0.0.1:1/x", "postgres://u:secret#a@127.0.0.1:1/x",
                                    "postgres://u:secret?a@127.0.0.1:1/x", "mysql://u:p@secret/a@127.0.0.1/x",
                                    "host=127.0.0.1 port=1 user=u password=secret"])  # fmt: skip
def test_what_cannot_be_opened_says_so_without_a_password(source: str) -> None:
    with pytest.raises(SourceUnreadable) as error:
        open_database(source)
    assert "secret" not in str(error.value) and len(str(error.value)) < 300


def test_other_files_and_other_programs_are_refused(tmp_path: Path, unpacked: Callable[[str], Old]) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no database")
    with pytest.raises(SourceUnreadable):
        open_source("one-api", str(text))
    with closing(sqlite3.connect(tmp_path / "empty.db")) as database:
        database.execute("CREATE TABLE x (id)")
    for program in ("one-api", "new-api"):
        with pytest.raises(SourceUnreadable):
            open_source(program, str(tmp_path / "empty.db"))
    with pytest.raises(SourceUnreadable, match="new-api"):
        open_source("one-api", str(unpacked("new-api").path))
    with pytest.raises(SourceUnreadable, match="one-api"):
        open_source("new-api", str(unpacked("one-api").path))


@pytest.mark.django_db
def test_older_and_newer_schemas_are_read(old: Old) -> None:
    """Tables and columns are missing, others are there that nobody knows."""
    for (index,) in old.run("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"):
        old.run(f"DROP INDEX `{index}`")
    for table, column in (("users", "display_name"), ("users", "email"), ("tokens", "accessed_time")):
        old.run(f"ALTER TABLE {table} DROP COLUMN {column}")
    old.run("ALTER TABLE users ADD COLUMN favourite_colour text DEFAULT 'red'")
    old.run("CREATE TABLE of_the_future (id integer)")
    old.run("DROP TABLE redemptions")
    report = old.imported(usage=True)
    assert report.counts["user"].new == 9 and any("redemptions" in line.text for line in report.lines)
    assert report.counts["token"].new and report.counts["usage"].new


def test_values_are_read_whatever_the_driver_makes_of_them() -> None:
    row = Row(a=b"x ", b=None, c="1", d=1.0, e=b"\1", f='{"x": 1}', g={"y": 2}, h="t", i=b"\0", j=Decimal(5))
    assert row.text("a") == "x" and row.text("b") == "" and row.whole("c") == 1 and row.whole("d") == 1
    assert row.flag("e") and not row.flag("i") and row.flag("h") and not row.flag("b") and row.whole("j") == 5
    assert row.object("f") == {"x": 1} and row.object("g") == {"y": 2} and row.object("a") == {}
    assert json_of("[1]") == [1] and json_of("nonsense") is None and json_of("") is None
    at = datetime(2026, 11, 22, 2, 41, 15, tzinfo=UTC)
    assert moment_of(int(at.timestamp())) == at == moment_of(int(at.timestamp()) * 1000)
    assert moment_of("2026-11-22 02:41:15+00:00") == at == moment_of("2026-11-22 02:41:15")
    assert moment_of(-1) is None and moment_of(0) is None and moment_of("soon") is None and moment_of(10**20) is None
    assert texts_of("a, b,,a") == ["a", "b"] and texts_of("1\r\n2;3", ",\n\r; ") == ["1", "2", "3"]
    assert nano_of(1, Decimal(500_000)) == (2000, True) and nano_of(-1, Decimal(300_000)) == (-3334, False)


@pytest.mark.parametrize(
    ("source", "verified"),
    [
        ("mysql://u:pw@db/x", None),
        ("mysql://u:pw@db/x?ssl-mode=VERIFY_IDENTITY", True),
        ("mysql://u:pw@db/x?ssl-mode=REQUIRED", False),
        ("u:pw@tcp(db:3307)/x?parseTime=true&tls=true", True),
        ("u:pw@tcp(db:3307)/x?tls=skip-verify", False),
        ("u:pw@tcp(db:3307)/x?tls=of-their-own", True),
    ],
)
def test_a_server_is_verified_where_the_address_says_so(
    source: str, verified: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def connect(**options: Any) -> None:
        asked.update(options)
        raise OSError("nobody answers")

    monkeypatch.setattr("pymysql.connect", connect)
    with pytest.raises(SourceUnreadable):
        open_database(source)
    assert asked["host"] == "db" and (None if "ssl" not in asked else asked["ssl"].check_hostname) is verified


def test_options_of_an_address_that_make_no_sense_are_told() -> None:
    with pytest.raises(SourceUnreadable, match="ssl-mode as one of"):
        open_database("mysql://u:pw@db/x?ssl-mode=sometimes")
