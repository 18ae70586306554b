"""Runs the ledger's SQL on the connection of the current thread, in transactions opened without Django's `atomic`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from django.conf import settings
from django.db import connection

# Columns of a ledger entry, in the order of EntryValues.
ENTRY_COLUMNS: Final = (
    "at", "kind", "debit", "credit", "amount", "held", "user_id", "token_id", "day", "request_id", "reservation",
    "actor_id", "reason",
)  # fmt: skip
EntryValues = tuple[Any, ...]
# How long a statement of the writer waits for a lock that somebody else holds, in PostgreSQL; in MySQL, which counts
# in seconds, one. After that its batch is divided, so that only those wait whose rows they are.
LOCK_MILLISECONDS: Final = 250
_LOCK_SECONDS: Final = 1


class SqlResult(Protocol):
    """The part of a DB-API cursor that the ledger uses."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class LedgerSql:
    """Executes the ledger's statements on Django's connection of this thread. The caller has opened a transaction."""

    def __init__(self) -> None:
        self.sqlite = connection.vendor == "sqlite"
        self.placeholders = ", ".join(["%s"] * len(ENTRY_COLUMNS))
        self._adapt = connection.ops.adapt_datetimefield_value
        columns = ", ".join(ENTRY_COLUMNS)
        self._insert = f"INSERT INTO relay_ledgerentry ({columns}) VALUES ({self.placeholders})"  # noqa: S608
        self._translated: dict[str, str] = {}
        self._second, self._text = 0, ""
        self.key = connection.ops.quote_name("key")
        self._attached: sqlite3.Connection | None = None
        self._bounded: object = None  # MySQL's connection whose waits for locks are short
        self.skips_locked = connection.features.has_select_for_update_skip_locked
        # MySQL would read a small table as a whole, and wait for the rows of others, unless an index is named.
        self.of_user = " FORCE INDEX (account_of_user)" if connection.vendor == "mysql" else ""
        self._wallets = f"SELECT id FROM relay_ledgeraccount{self.of_user} WHERE kind = 'wallet' AND user_id"  # noqa: S608

    def attach(self) -> None:
        """Use the connection as it is now, SQLite's without asking Django for it at each statement. Called per batch.

        On MySQL its statements wait for locks only shortly.
        """
        connection.ensure_connection()
        self._attached = connection.connection if self.sqlite else None
        if connection.vendor == "mysql" and self._bounded is not connection.connection:
            self.run(
                "SET SESSION innodb_lock_wait_timeout = %s, lock_wait_timeout = %s", (_LOCK_SECONDS, _LOCK_SECONDS)
            )
            self._bounded = connection.connection

    def run(self, sql: str, values: Sequence[Any] = ()) -> SqlResult:
        if self.sqlite:  # bypasses Django's cursor, which takes as long as SQLite itself
            try:
                return (self._attached or self._database()).execute(
                    self._translated.get(sql) or self._native(sql), values
                )
            except sqlite3.Error:
                with connection.wrap_database_errors:
                    raise
        cursor = connection.cursor()
        cursor.execute(sql, values)
        return cursor

    def write(self, entries: Sequence[EntryValues]) -> None:
        """Insert ledger entries."""
        if entries:
            self.insert(self._insert, entries)

    def insert(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Execute an INSERT for each of several rows."""
        if self.sqlite:
            try:
                (self._attached or self._database()).executemany(self._translated.get(sql) or self._native(sql), rows)
            except sqlite3.Error:
                with connection.wrap_database_errors:
                    raise
            return
        with connection.cursor() as cursor:
            cursor.executemany(sql, rows)

    def _database(self) -> sqlite3.Connection:
        connection.ensure_connection()
        database: sqlite3.Connection = connection.connection
        return database

    def _native(self, sql: str) -> str:
        found = self._translated[sql] = sql.replace("%s", "?")
        return found

    def at(self, seconds: float) -> Any:
        """Convert seconds since 1970 to the form in which this database stores a date and time.

        SQLite's text is formatted here instead of by Django, since it is needed twice for every request.
        """
        if not self.sqlite:
            return self._adapt(datetime.fromtimestamp(seconds, UTC))
        whole = int(seconds)
        if whole != self._second:
            self._second, self._text = whole, datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%d %H:%M:%S")
        return f"{self._text}.{int((seconds - whole) * 1_000_000):06d}"

    def bound_locks(self) -> None:
        """Wait for locks only shortly in the rest of this transaction, on PostgreSQL. MySQL has it per connection."""
        if connection.vendor == "postgresql":
            self.run(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}")

    def lock(self, *user_ids: int) -> None:
        """Lock the accounts of these users until the transaction ends, in the order of their ids, as everybody does."""
        if user_ids and not self.sqlite:
            ids = ", ".join(["%s"] * len(user_ids))
            self.run(f"{self._wallets} IN ({ids}) ORDER BY user_id FOR UPDATE", user_ids).fetchall()

    def lock_free(self, user_id: int) -> bool:
        """Lock a user's accounts, unless somebody else has. Returns whether they are locked, or there is no wallet."""
        if not self.skips_locked:
            self.lock(user_id)
            return True
        found = self.run(f"{self._wallets} = %s FOR UPDATE SKIP LOCKED", (user_id,)).fetchone()
        return found is not None or self.run(f"{self._wallets} = %s", (user_id,)).fetchone() is None


def begin(db: LedgerSql) -> None:
    """Begin a transaction of the writer, on SQLite with the write lock."""
    db.run("BEGIN IMMEDIATE" if db.sqlite else "BEGIN")
    db.bound_locks()


@contextmanager
def without_disk_sync(db: LedgerSql) -> Iterator[None]:
    """Inside the block commits do not wait for the disk, so a power cut may lose them.

    Meant for reservations: one that is lost together with its request does no harm. The next commit of a usage record
    makes them durable, too, since both go into one log.
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
    """Roll back a failed transaction; close the connection when that fails."""
    try:
        if not db.sqlite or connection.connection.in_transaction:
            db.run("ROLLBACK")
    except Exception:
        connection.close()
