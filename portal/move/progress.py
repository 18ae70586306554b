"""What a move has done so far, in tables of its own in the database that it copies to.

While they are there that database is an unfinished copy: no portal serves from it, and only another run of the move of
the same installation writes to it.
"""

from __future__ import annotations

from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper

from accounts.models import User
from portal.move.tables import Table, Window

_FACTS: Final = "airelays_move"
_WINDOWS: Final = "airelays_move_window"


def is_unfinished(database: BaseDatabaseWrapper) -> bool:
    """Whether a database is the copy of a move that has not been finished."""
    return _FACTS in database.introspection.table_names()


def holds_portal(database: BaseDatabaseWrapper) -> bool:
    """Whether a database has the tables of a portal."""
    with database.cursor() as cursor:
        return User._meta.db_table in database.introspection.table_names(cursor)


def is_empty(database: BaseDatabaseWrapper) -> bool:
    """Whether a database has no tables and no views at all."""
    with database.cursor() as cursor:
        return not database.introspection.table_names(cursor, include_views=True)


class Progress:
    """The state of a move."""

    def __init__(self, target: BaseDatabaseWrapper) -> None:
        self._target = target

    def begin(self, facts: dict[str, str]) -> None:
        """Mark an empty database, or one in which nothing more was done, as the copy of an installation."""
        with self._target.cursor() as cursor:
            cursor.execute(
                f"CREATE TABLE IF NOT EXISTS {_FACTS} (name VARCHAR(64) NOT NULL PRIMARY KEY, fact TEXT NOT NULL)"
            )
        self.make_windows()
        for name, fact in facts.items():
            self.note(name, fact)

    def make_windows(self) -> None:
        """Make the table of windows unless it is there: `end` drops it first, and a run may be killed then."""
        with self._target.cursor() as cursor:
            if _WINDOWS not in self._target.introspection.table_names(cursor):
                cursor.execute(
                    f"CREATE TABLE {_WINDOWS} (of_table VARCHAR(64) NOT NULL, first_key BIGINT NOT NULL, row_count "
                    "BIGINT NOT NULL, digest VARCHAR(120) NOT NULL, PRIMARY KEY (of_table, first_key))"
                )

    def is_bare(self) -> bool:
        """Whether there is nothing but the tables of the move itself."""
        return set(self._target.introspection.table_names()) <= {_FACTS, _WINDOWS}

    def drop_tables(self) -> None:
        """Drop everything that an interrupted migration has left in the database, which was empty before the move."""
        found = set(self._target.introspection.table_names()) - {_FACTS, _WINDOWS}
        with self._target.constraint_checks_disabled(), self._target.cursor() as cursor:
            for name in sorted(found):
                cursor.execute(f"DROP TABLE {self._target.ops.quote_name(name)}")

    def fact(self, name: str) -> str:
        """What has been noted, empty if nothing has."""
        with self._target.cursor() as cursor:
            cursor.execute(f"SELECT fact FROM {_FACTS} WHERE name = %s", [name])  # noqa: S608
            found = cursor.fetchone()
        return str(found[0]) if found else ""

    def facts(self, prefix: str) -> dict[str, str]:
        """All that has been noted under names with a prefix."""
        with self._target.cursor() as cursor:
            cursor.execute(f"SELECT name, fact FROM {_FACTS} ORDER BY name")  # noqa: S608
            return {name: fact for name, fact in cursor.fetchall() if name.startswith(prefix)}

    def note(self, name: str, fact: str) -> None:
        with self._target.cursor() as cursor:
            cursor.execute(f"DELETE FROM {_FACTS} WHERE name = %s", [name])  # noqa: S608
            cursor.execute(f"INSERT INTO {_FACTS} (name, fact) VALUES (%s, %s)", [name, fact])  # noqa: S608

    def windows(self, table: Table) -> dict[int, Window]:
        """The windows of a table that have been copied, by their first keys."""
        with self._target.cursor() as cursor:
            cursor.execute(
                f"SELECT first_key, row_count, digest FROM {_WINDOWS} WHERE of_table = %s",  # noqa: S608
                [table.name],
            )
            return {row[0]: Window(*row) for row in cursor.fetchall()}

    def add(self, table: Table, window: Window) -> None:
        with self._target.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {_WINDOWS} (of_table, first_key, row_count, digest) VALUES (%s, %s, %s, %s)",  # noqa: S608
                [table.name, window.first, window.rows, window.digest],
            )

    def forget(self, table: Table, first: int) -> None:
        with self._target.cursor() as cursor:
            cursor.execute(
                f"DELETE FROM {_WINDOWS} WHERE of_table = %s AND first_key = %s",  # noqa: S608
                [table.name, first],
            )

    def end(self) -> None:
        """The copy is whole: nothing tells it from another database of a portal any more. The mark goes last."""
        with self._target.cursor() as cursor:
            cursor.execute(f"DROP TABLE {_WINDOWS}")
            cursor.execute(f"DROP TABLE {_FACTS}")
