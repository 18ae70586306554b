"""Rows as the driver of one database gives them, and as that of another takes them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from django.db import DataError, IntegrityError, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.operations import BaseDatabaseOperations

from portal.lib.texts import reason
from portal.move.tables import Table

_REPLACED: Final = "\N{REPLACEMENT CHARACTER}"
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_OF_ROWS: Final = (DataError, IntegrityError, ValueError, OverflowError)


class RowRefused(Exception):
    """The other database does not take a row. The message says which, and why."""


class RowWriter:
    """Writes rows of one table into another database, inside the caller's transaction there.

    `replaced` counts rows in which characters were replaced that PostgreSQL cannot store: NUL, and half characters in
    JSON.
    """

    def __init__(self, table: Table, source: BaseDatabaseWrapper, target: BaseDatabaseWrapper) -> None:
        self._table, self._target = table, target
        self._read = [_reading(field, source) for field in table.fields]
        self._adapt = [_adapting(field, target.ops) for field in table.fields]
        self._as_json = [isinstance(field, models.JSONField) for field in table.fields]
        quote = target.ops.quote_name
        columns = ", ".join(quote(field.column) for field in table.fields)
        places = ", ".join(["%s"] * len(table.fields))
        self._copy = f"COPY {quote(table.name)} ({columns}) FROM STDIN"
        self._insert = f"INSERT INTO {quote(table.name)} ({columns}) VALUES ({places})"  # noqa: S608
        self.replaced = 0

    def write(self, rows: Sequence[Any]) -> None:
        """Write rows as the driver of the source gave them. Raises RowRefused, DatabaseError."""
        values = [tuple(read(value) for read, value in zip(self._read, row, strict=True)) for row in rows]
        driver: Any = self._target.Database  # type: ignore[attr-defined]  # each backend has it
        savepoint: Any = self._target.savepoint()
        try:
            self._put(values)
        except (*_OF_ROWS, driver.DataError, driver.IntegrityError):  # psycopg's own: Django does not wrap COPY
            self._target.savepoint_rollback(savepoint)
            for row in values:
                self._put_alone(row)
        else:
            self._target.savepoint_commit(savepoint)

    def _put_alone(self, row: tuple[Any, ...]) -> None:
        """Write a row by itself, with what the target can store of its texts."""
        clean = row
        if self._target.vendor == "postgresql":
            clean = tuple(_storable(value, of) for value, of in zip(row, self._as_json, strict=True))
            self.replaced += clean != row
        try:
            self._put([clean])
        except Exception as error:
            key = row[[field.column for field in self._table.fields].index(self._table.key)]
            raise RowRefused(
                f"The other database does not take row {str(key)[:40]} of {self._table.name}: "
                f"{reason(error).splitlines()[0].rstrip('.')}"
            ) from error

    def _put(self, values: Sequence[tuple[Any, ...]]) -> None:
        with self._target.cursor() as cursor:
            if self._target.vendor == "postgresql":
                with cursor.copy(self._copy) as copy:
                    for row in values:
                        copy.write_row(row)
            else:
                cursor.executemany(
                    self._insert, [tuple(a(value) for a, value in zip(self._adapt, row, strict=True)) for row in values]
                )


def _same(value: Any) -> Any:
    return value


def _reading(field: Any, source: BaseDatabaseWrapper) -> Callable[[Any], Any]:
    """Makes of what the driver gave the value that the field has in Python; JSON stays text."""
    column = field.get_col(field.model._meta.db_table)
    converters = source.ops.get_db_converters(column)
    if not converters:
        return _same

    def read(value: Any) -> Any:
        for convert in converters:
            value = convert(value, column, source)
        return value

    return read


def _adapting(field: Any, ops: BaseDatabaseOperations) -> Callable[[Any], Any]:
    """Makes of that what the driver takes; psycopg takes it as it is."""
    if isinstance(field, models.DateTimeField):
        return ops.adapt_datetimefield_value
    if isinstance(field, models.DateField):
        return ops.adapt_datefield_value
    if isinstance(field, models.DecimalField):
        return lambda value: ops.adapt_decimalfield_value(value, field.max_digits, field.decimal_places)
    return _same


def _storable(value: Any, is_json: bool) -> Any:
    """A text without what PostgreSQL cannot store."""
    if not isinstance(value, str):
        return value
    if is_json:
        return json.dumps(_storable_json(json.loads(value)), ensure_ascii=False)
    return _UNSTORABLE.sub(_REPLACED, value)


def _storable_json(found: Any) -> Any:
    if isinstance(found, str):
        return _UNSTORABLE.sub(_REPLACED, found)
    if isinstance(found, list):
        return [_storable_json(one) for one in found]
    if isinstance(found, dict):
        return {_storable_json(key): _storable_json(value) for key, value in found.items()}
    return found
