"""Copies tables into another database, window by window: all of them at first, then those that have changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from portal.move.progress import Progress
from portal.move.rows import RowWriter
from portal.move.tables import Table, Window, digest_of, next_key, read_all, read_window, windows

Tell = Callable[[str, int], None]  # a table, and how many of its rows have been copied


@dataclass(slots=True)
class Copied:
    """How many rows were written, and how many of them could not be stored as they were."""

    rows: int = 0
    replaced: int = 0


class Copier:
    """Copies tables from one database, of which a transaction sees one state, into the default one of this thread."""

    def __init__(self, source: BaseDatabaseWrapper, target: BaseDatabaseWrapper, tell: Tell) -> None:
        self._source, self._target, self._tell = source, target, tell
        self._progress = Progress(target)
        self.done = Copied()

    def copy(self, table: Table) -> None:
        """Make a table what it is in the source. Raises RowRefused, DatabaseError."""
        writer = RowWriter(table, self._source, self._target)
        written = self.done.rows
        if not table.counts:
            self._copy_whole(table, writer)
        elif known := self._progress.windows(table):
            self._copy_changes(table, writer, known)
        else:
            self._copy_first(table, writer)
        self.done.replaced += writer.replaced
        if self.done.rows > written:
            self._tell(table.name, self.done.rows - written)

    def _copy_whole(self, table: Table, writer: RowWriter) -> None:
        with transaction.atomic():
            self._delete(table, "")
            for rows in read_all(self._source, table):
                writer.write(rows)
                self.done.rows += len(rows)

    def _copy_first(self, table: Table, writer: RowWriter) -> None:
        """Copy a table of which nothing has been copied yet."""
        with transaction.atomic():
            self._delete(table, "")  # what migrations have written
        began = self.done.rows
        known = {one.first: one for one in windows(self._source, table)} if table.written_once else {}
        first = next_key(self._source, table, None)
        while first is not None:
            begin = first - first % table.width
            rows = read_window(self._source, table, begin)
            window = known.get(begin) or Window(begin, len(rows), digest_of(rows))
            self._write(table, writer, window, rows)
            self._tell(table.name, self.done.rows - began)
            first = next_key(self._source, table, begin + table.width)

    def _copy_changes(self, table: Table, writer: RowWriter, known: dict[int, Window]) -> None:
        """Copy the windows that differ. They are all deleted first: a name may have gone from one row to another."""
        changed: list[Window] = []
        for window in windows(self._source, table):
            if known.pop(window.first, None) != window:
                changed.append(window)
        with transaction.atomic():
            for first in (*known, *(one.first for one in changed)):
                key = self._target.ops.quote_name(table.key)
                self._delete(table, f" WHERE {key} >= {first} AND {key} < {first + table.width}")
                self._progress.forget(table, first)
        for window in changed:
            self._write(table, writer, window, read_window(self._source, table, window.first))

    def _write(self, table: Table, writer: RowWriter, window: Window, rows: list[object]) -> None:
        with transaction.atomic():
            writer.write(rows)
            self._progress.add(table, window)
        self.done.rows += len(rows)

    def _delete(self, table: Table, where: str) -> None:
        with self._target.cursor() as cursor:
            cursor.execute(f"DELETE FROM {self._target.ops.quote_name(table.name)}{where}")  # noqa: S608
