"""How the ledger speaks to the database: statements on the connection of the thread, and transactions that Django does not open."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from django.conf import settings
from django.db import connection

ENTRY: Final = ("at", "kind", "debit", "credit", "amount", "held", "user_id", "token_id", "day", "request_id", "reservation", "actor_id", "reason")
EntryValues = tuple[Any, ...]


class Result(Protocol):
    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class LedgerSql:
    """Runs the ledger's statements on Django's connection of this thread, inside a transaction that the caller has opened."""

    def __init__(self) -> None:
        self.sqlite = connection.vendor == "sqlite"
        self.placeholders = ", ".join(["%s"] * len(ENTRY))
        self._adapt = connection.ops.adapt_datetimefield_value
        self._insert = f"INSERT INTO relay_ledgerentry ({', '.join(ENTRY)}) VALUES ({self.placeholders})"  # noqa: S608
        self._translated: dict[str, str] = {}
        self._second, self._text = 0, ""
        self.key = connection.ops.quote_name("key")

    def run(self, sql: str, values: Sequence[Any] = ()) -> Result:
        if self.sqlite:  # without Django's cursor, which takes as long as SQLite itself
            with connection.wrap_database_errors:
                return self._database.execute(self._native(sql), values)
        cursor = connection.cursor()
        cursor.execute(sql, values)
        return cursor

    def write(self, entries: Sequence[EntryValues]) -> None:
        if not entries:
            return
        if self.sqlite:
            with connection.wrap_database_errors:
                self._database.executemany(self._native(self._insert), entries)
            return
        with connection.cursor() as cursor:
            cursor.executemany(self._insert, entries)

    @property
    def _database(self) -> sqlite3.Connection:
        connection.ensure_connection()
        database: sqlite3.Connection = connection.connection
        return database

    def _native(self, sql: str) -> str:
        found = self._translated.get(sql)
        if found is None:
            found = self._translated[sql] = sql.replace("%s", "?")
        return found

    def at(self, seconds: float) -> Any:
        """A moment as this database stores it. The text of SQLite is made here: it is wanted twice for every request."""
        if not self.sqlite:
            return self._adapt(datetime.fromtimestamp(seconds, UTC))
        whole = int(seconds)
        if whole != self._second:
            self._second, self._text = whole, datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%d %H:%M:%S")
        return f"{self._text}.{int((seconds - whole) * 1_000_000):06d}"

    def lock(self, user_id: int) -> None:
        """Keep others out of this user's accounts until the transaction ends."""
        if not self.sqlite:
            self.run("SELECT id FROM relay_ledgeraccount WHERE user_id = %s AND kind = 'wallet' FOR UPDATE", (user_id,)).fetchall()


def begin(db: LedgerSql) -> None:
    db.run("BEGIN IMMEDIATE" if db.sqlite else "BEGIN")


@contextmanager
def unhurried(db: LedgerSql) -> Iterator[None]:
    """For commits that need not survive a power cut: a reservation that is lost with its request is no loss. Saves the wait for the disk.

    A later commit of a record makes them durable, too, since both go into one log.
    """
    if db.sqlite and settings.CONFIG.sqlite_sync == "full":
        db.run("PRAGMA synchronous = NORMAL")
        try:
            yield
        finally:
            db.run("PRAGMA synchronous = FULL")
    elif connection.vendor == "postgresql":
        db.run("SET synchronous_commit = off")
        try:
            yield
        finally:
            db.run("RESET synchronous_commit")
    else:
        yield


def rollback(db: LedgerSql) -> None:
    """End a failed transaction, as far as there still is a connection to end it on."""
    try:
        if not db.sqlite or connection.connection.in_transaction:
            db.run("ROLLBACK")
    except Exception:
        connection.close()
