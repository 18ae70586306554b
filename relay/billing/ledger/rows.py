"""Rows that are written in the commit of a usage record: what a request leaves behind beside its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from django.db import connection, models
from django.db.models.constants import OnConflict

from relay.billing.ledger.sql import LedgerSql


@dataclass(frozen=True, slots=True)
class Moment:
    """Seconds since 1970, stored as the database stores a date and time."""

    seconds: float


@dataclass(frozen=True, slots=True)
class RowWrite:
    """A new row, or, with `pk`, changes of one. `replace`: columns by which older rows are told that go first."""

    table: type[models.Model]
    columns: tuple[str, ...]
    values: tuple[object, ...]
    replace: tuple[str, ...] = ()
    pk: int | None = None

    def run(self, db: LedgerSql) -> None:
        values = [db.at(value.seconds) if isinstance(value, Moment) else value for value in self.values]
        if self.pk is not None:
            db.run(_update_sql(self.table, self.columns), [*values, self.pk])
            return
        if self.replace:
            keys = [values[self.columns.index(name)] for name in self.replace]
            db.run(_delete_sql(self.table, self.replace), keys)
        db.run(_insert_sql(self.table, self.columns), values)


def insert(table: type[models.Model], replace: Sequence[str] = (), **values: object) -> RowWrite:
    """A new row. One that is there already stays; `replace`: names by which an older one is told, which then goes."""
    return RowWrite(table, tuple(values), tuple(values.values()), tuple(replace))


def update(table: type[models.Model], pk: int, **values: object) -> RowWrite:
    """Changes of a row, if it is still there."""
    return RowWrite(table, tuple(values), tuple(values.values()), pk=pk)


@lru_cache(maxsize=32)
def _insert_sql(table: type[models.Model], columns: tuple[str, ...]) -> str:
    ops = connection.ops
    name, quoted = _quoted(table)
    insert_into = ops.insert_statement(on_conflict=OnConflict.IGNORE)
    suffix = ops.on_conflict_suffix_sql(table._meta.concrete_fields, OnConflict.IGNORE, [], [])
    return f"{insert_into} {name} ({', '.join(quoted[column] for column in columns)}) VALUES ({', '.join(['%s'] * len(columns))}) {suffix}".strip()


@lru_cache(maxsize=32)
def _delete_sql(table: type[models.Model], keys: tuple[str, ...]) -> str:
    name, quoted = _quoted(table)
    return f"DELETE FROM {name} WHERE {' AND '.join(f'{quoted[key]} = %s' for key in keys)}"  # noqa: S608  # names of our own tables


@lru_cache(maxsize=32)
def _update_sql(table: type[models.Model], columns: tuple[str, ...]) -> str:
    name, quoted = _quoted(table)
    return f"UPDATE {name} SET {', '.join(f'{quoted[column]} = %s' for column in columns)} WHERE {quoted['pk']} = %s"  # noqa: S608  # names of our own tables


def _quoted(table: type[models.Model]) -> tuple[str, dict[str, str]]:
    """A table's name and those of its columns, by attribute; `pk` is its key."""
    quote, meta = connection.ops.quote_name, table._meta
    return quote(meta.db_table), {"pk": quote(meta.pk.column or meta.pk.attname)} | {field.attname: quote(field.column or field.attname) for field in meta.concrete_fields}
