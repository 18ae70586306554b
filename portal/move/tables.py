"""The tables that are moved, and their windows: ranges of keys that are compared and copied as a whole.

What a window holds is told by a digest, which is kept where it was copied to. So a second run reads the old database
alone, and writes only what has changed since the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from django.apps import apps
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from relay.models import LedgerEntry, UsageRecord

_KEYS: Final = 4096  # of a window
_KEYS_OF_TEXTS: Final = 64  # of a table with texts of any length, such as stored responses
_ROWS: Final = 500  # that are read at once where there are no windows
# Rows of these are written once and never changed, so that a window is known by its keys.
_WRITTEN_ONCE: Final = (UsageRecord, LedgerEntry)


@dataclass(frozen=True, slots=True)
class Window:
    """A range of keys: the first of those that it may have, and what it holds."""

    first: int
    rows: int
    digest: str


@dataclass(frozen=True)
class Table:
    """A table of a model."""

    model: type[models.Model]

    @cached_property
    def name(self) -> str:
        return self.model._meta.db_table

    @cached_property
    def fields(self) -> list[Any]:
        """Those whose values are copied: what a database works out for itself cannot be written."""
        return [field for field in self.model._meta.concrete_fields if not field.generated]

    @cached_property
    def key(self) -> str:
        column = self.model._meta.pk.column
        return str(column)

    @cached_property
    def counts(self) -> bool:
        """Whether its key is a number, by which it has windows."""
        return isinstance(self.model._meta.pk, models.AutoField | models.BigAutoField)

    @cached_property
    def written_once(self) -> bool:
        return self.model in _WRITTEN_ONCE

    @cached_property
    def width(self) -> int:
        """The keys of a window."""
        return _KEYS_OF_TEXTS if any(isinstance(one, models.TextField) for one in self.fields) else _KEYS

    def selection(self, source: BaseDatabaseWrapper) -> str:
        quote = source.ops.quote_name
        return f"SELECT {', '.join(quote(one.column) for one in self.fields)} FROM {quote(self.name)}"  # noqa: S608


def all_tables() -> list[Table]:
    """The tables of all models, in the order of their names."""
    found = [model for model in apps.get_models(include_auto_created=True) if model._meta.managed]
    return [Table(model) for model in sorted(found, key=lambda model: model._meta.db_table)]


def windows(source: BaseDatabaseWrapper, table: Table) -> Iterator[Window]:
    """The windows of a table that have rows, in their order."""
    if table.written_once:
        yield from _windows_by_keys(source, table)
        return
    first = next_key(source, table, None)
    while first is not None:
        begin = first - first % table.width
        rows = read_window(source, table, begin)
        yield Window(begin, len(rows), digest_of(rows))
        first = next_key(source, table, begin + table.width)


def _windows_by_keys(source: BaseDatabaseWrapper, table: Table) -> Iterator[Window]:
    key, name = source.ops.quote_name(table.key), source.ops.quote_name(table.name)
    divided = f"{key} {'DIV' if source.vendor == 'mysql' else '/'} {table.width}"
    with source.cursor() as cursor:
        cursor.execute(
            f"SELECT {divided}, COUNT(*), SUM({key}), MIN({key}), MAX({key}) FROM {name} "  # noqa: S608
            f"GROUP BY {divided} ORDER BY 1"
        )
        for number, *held in cursor.fetchall():
            yield Window(int(number) * table.width, int(held[0]), ":".join(str(int(one)) for one in held))


def next_key(source: BaseDatabaseWrapper, table: Table, since: int | None) -> int | None:
    """The first key from one on; None when there is none."""
    key, name = source.ops.quote_name(table.key), source.ops.quote_name(table.name)
    where = "" if since is None else f" WHERE {key} >= {since}"
    with source.cursor() as cursor:
        cursor.execute(f"SELECT MIN({key}) FROM {name}{where}")  # noqa: S608
        found = cursor.fetchone()[0]
    return None if found is None else int(found)


def read_window(source: BaseDatabaseWrapper, table: Table, first: int) -> list[Any]:
    """The rows of a window, as the driver gives them."""
    key = source.ops.quote_name(table.key)
    with source.cursor() as cursor:
        cursor.execute(
            f"{table.selection(source)} WHERE {key} >= {first} AND {key} < {first + table.width} ORDER BY {key}"
        )
        return list(cursor.fetchall())


def read_all(source: BaseDatabaseWrapper, table: Table) -> Iterator[list[Any]]:
    """The rows of a table without windows, some at a time."""
    with source.chunked_cursor() as cursor:
        cursor.execute(table.selection(source))
        while rows := cursor.fetchmany(_ROWS):
            yield list(rows)


def digest_of(rows: list[Any]) -> str:
    return hashlib.blake2b(repr(rows).encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def count(database: BaseDatabaseWrapper, table: Table) -> int:
    with database.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM {database.ops.quote_name(table.name)}")  # noqa: S608
        return int(cursor.fetchone()[0])
