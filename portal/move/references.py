"""References between tables, and the numbers of new rows, in the database that a move copies to.

Tables are copied one after the other, so that a row may be there before the one that it refers to. References are
checked when everything is there.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any, Final

from django.db import IntegrityError
from django.db.backends.base.base import BaseDatabaseWrapper

from portal.lib.texts import reason
from portal.move.progress import Progress
from portal.move.tables import Table

_PREFIX: Final = "reference:"
_OF_POSTGRESQL: Final = (
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE contype = 'f' AND connamespace = current_schema()::regnamespace ORDER BY conname"
)


class DanglingReference(Exception):
    """A row refers to one that there is not. The message is one sentence."""


def suspend(target: BaseDatabaseWrapper, progress: Progress) -> None:
    """Let rows refer to what is not there yet: for this connection, in PostgreSQL until `restore`."""
    with target.cursor() as cursor:
        if target.vendor == "sqlite":
            cursor.execute("PRAGMA foreign_keys = OFF")
        elif target.vendor == "mysql":
            cursor.execute("SET foreign_key_checks = 0")
        else:
            cursor.execute(_OF_POSTGRESQL)
            for table, name, definition in cursor.fetchall():
                key = sha256(f"{table} {name}".encode()).hexdigest()[:32]  # a name may be longer than that of a fact
                progress.note(f"{_PREFIX}{key}", json.dumps([table, name, definition]))
                cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {target.ops.quote_name(name)}")


def restore(target: BaseDatabaseWrapper, progress: Progress) -> None:
    """Check all references, and have new ones checked again. Raises DanglingReference."""
    try:
        if target.vendor == "postgresql":
            _restore_postgresql(target, progress)
        else:
            target.check_constraints()
    except IntegrityError as error:
        raise DanglingReference(f"A reference leads nowhere: {reason(error).splitlines()[0].rstrip('.')}") from error
    with target.cursor() as cursor:
        if target.vendor == "sqlite":
            cursor.execute("PRAGMA foreign_keys = ON")
        elif target.vendor == "mysql":
            cursor.execute("SET foreign_key_checks = 1")


def _restore_postgresql(target: BaseDatabaseWrapper, progress: Progress) -> None:
    with target.cursor() as cursor:
        cursor.execute(_OF_POSTGRESQL)
        there = {name for _table, name, _definition in cursor.fetchall()}
        for fact in progress.facts(_PREFIX).values():
            table, name, definition = json.loads(fact)
            if name not in there:
                cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {target.ops.quote_name(name)} {definition}")


def last_number(database: BaseDatabaseWrapper, table: Table) -> int:
    """The number of the last row that a table ever had: no new one may get it, or a smaller one.

    What a deleted user has left would belong to a new one otherwise.
    """
    quote = database.ops.quote_name
    found: list[Any] = [0]
    with database.cursor() as cursor:
        cursor.execute(f"SELECT MAX({quote(table.key)}) FROM {quote(table.name)}")  # noqa: S608
        largest = cursor.fetchone()[0] or 0
        if database.vendor == "sqlite":
            cursor.execute("SELECT seq FROM sqlite_sequence WHERE name = %s", [table.name])
        elif database.vendor == "mysql":
            cursor.execute(
                "SELECT auto_increment - 1 FROM information_schema.tables WHERE table_schema = DATABASE() "
                "AND table_name = %s",
                [table.name],
            )
        else:
            cursor.execute("SELECT pg_get_serial_sequence(%s, %s)", [quote(table.name), table.key])
            if sequence := cursor.fetchone()[0]:
                cursor.execute(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}")  # noqa: S608
        found = cursor.fetchone() or found
    return max(int(largest), int(found[0] or 0))


def set_last_number(database: BaseDatabaseWrapper, table: Table, number: int) -> None:
    """Have new rows begin behind a number."""
    if not number:
        return
    quote = database.ops.quote_name
    with database.cursor() as cursor:
        if database.vendor == "sqlite":
            cursor.execute("DELETE FROM sqlite_sequence WHERE name = %s", [table.name])
            cursor.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (%s, %s)", [table.name, number])
        elif database.vendor == "mysql":
            cursor.execute(f"ALTER TABLE {quote(table.name)} AUTO_INCREMENT = {number + 1}")
        else:
            cursor.execute("SELECT setval(pg_get_serial_sequence(%s, %s), %s)", [quote(table.name), table.key, number])
