"""Rows that are written in the same commit as a usage record, such as the stored response of the request."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from django.db import DatabaseError, IntegrityError, connection, models
from django.db.models.constants import OnConflict

from portal.services.databases import is_duplicate
from relay.billing.ledger.sql import LedgerSql

logger: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Moment:
    """A date and time among the values of a row, converted to the form of the database when it is written."""

    seconds: float  # since 1970


@dataclass(frozen=True, slots=True)
class RowWrite:
    """One INSERT or UPDATE."""

    table: type[models.Model]
    columns: tuple[str, ...]  # attribute names of fields, in the order of `values`
    values: tuple[object, ...]
    replace: tuple[str, ...] = ()  # older rows with the same values in these columns are deleted first
    pk: int | None = None  # the row to update, None: insert a row
    only_replaces: bool = False  # insert nothing when there is no older row: it was deleted on purpose
    otherwise: Callable[[], RowWrite] | None = None  # what is inserted when the row conflicts with an existing one

    def run(self, db: LedgerSql) -> None:
        """Execute it inside the caller's transaction."""
        values = [db.at(value.seconds) if isinstance(value, Moment) else value for value in self.values]
        if self.pk is not None:
            db.run(_update_sql(self.table, self.columns), [*values, self.pk])
            return
        if self.replace:
            keys = [values[self.columns.index(name)] for name in self.replace]
            replaced = db.run(_delete_sql(self.table, self.replace), keys).rowcount
            if self.only_replaces and not replaced:
                return
        try:
            inserted = db.run(_insert_sql(self.table, self.columns), values).rowcount
        except IntegrityError as error:
            if connection.vendor != "mysql" or not is_duplicate(error):
                raise
            inserted = 0
        if not inserted and self.otherwise is not None:
            self.otherwise().run(db)

    def run_apart(self, db: LedgerSql) -> None:
        """Execute it, or leave it out when the database refuses it, so that the others of its commit are written.

        Most of these belong to something that was deleted while the request ran.
        """
        if connection.vendor == "postgresql":
            db.run("SET CONSTRAINTS ALL IMMEDIATE")  # otherwise a missing parent fails the commit as a whole
        db.run("SAVEPOINT row_apart")
        try:
            if db.sqlite and (missing := self._missing_parent(db)):  # SQLite has no way to check before the commit
                logger.warning("a row of %s was not written: its %s is gone", self.table.__name__, missing)
            else:
                self.run(db)
        except (DatabaseError, OverflowError, ValueError) as error:
            db.run("ROLLBACK TO SAVEPOINT row_apart")  # raises when the database is away
            logger.warning("a row of %s was not written: %s", self.table.__name__, error)
        db.run("RELEASE SAVEPOINT row_apart")

    def _missing_parent(self, db: LedgerSql) -> str:
        """The name of a foreign key whose row does not exist; empty when all do."""
        for field in self.table._meta.concrete_fields:
            parent = field.related_model
            # `LooseForeignKey` has no constraint.
            if field.attname not in self.columns or not isinstance(parent, type) or not vars(field)["db_constraint"]:
                continue
            value = self.values[self.columns.index(field.attname)]
            if value is not None and not db.run(_exists_sql(parent), (value,)).fetchone():
                return field.name
        return ""


def insert(table: type[models.Model], replace: Sequence[str] = (), **values: object) -> RowWrite:
    """Insert a row.

    Does nothing when it conflicts with an existing one, unless that has the same values in `replace`.
    """
    return RowWrite(table, tuple(values), tuple(values.values()), tuple(replace))


def update(table: type[models.Model], pk: int, **values: object) -> RowWrite:
    """Update a row, if it still exists."""
    return RowWrite(table, tuple(values), tuple(values.values()), pk=pk)


@lru_cache(maxsize=32)
def _insert_sql(table: type[models.Model], columns: tuple[str, ...]) -> str:
    """An INSERT that leaves a row alone with which it conflicts.

    On MySQL it fails then: IGNORE would also ignore a missing parent, and change values that the columns do not take.
    """
    ops = connection.ops
    name, quoted = _quoted(table)
    insert_into = ops.insert_statement(on_conflict=OnConflict.IGNORE)
    suffix = ops.on_conflict_suffix_sql(table._meta.concrete_fields, OnConflict.IGNORE, [], [])
    if connection.vendor == "mysql":
        insert_into, suffix = "INSERT INTO", ""
    return (
        f"{insert_into} {name} ({', '.join(quoted[column] for column in columns)}) VALUES "
        f"({', '.join(['%s'] * len(columns))}) {suffix}"
    ).strip()


@lru_cache(maxsize=32)
def _exists_sql(table: type[models.Model]) -> str:
    name, quoted = _quoted(table)
    return f"SELECT 1 FROM {name} WHERE {quoted['pk']} = %s"  # noqa: S608  # names of our own tables


@lru_cache(maxsize=32)
def _delete_sql(table: type[models.Model], keys: tuple[str, ...]) -> str:
    name, quoted = _quoted(table)
    conditions = " AND ".join(f"{quoted[key]} = %s" for key in keys)
    return f"DELETE FROM {name} WHERE {conditions}"  # noqa: S608  # names of our own tables


@lru_cache(maxsize=32)
def _update_sql(table: type[models.Model], columns: tuple[str, ...]) -> str:
    name, quoted = _quoted(table)
    changes = ", ".join(f"{quoted[column]} = %s" for column in columns)
    return f"UPDATE {name} SET {changes} WHERE {quoted['pk']} = %s"  # noqa: S608  # names of our own tables


def _quoted(table: type[models.Model]) -> tuple[str, dict[str, str]]:
    """Return the quoted name of a table and those of its columns by attribute name; `pk` is the primary key."""
    quote, meta = connection.ops.quote_name, table._meta
    return quote(meta.db_table), {"pk": quote(meta.pk.column or meta.pk.attname)} | {
        field.attname: quote(field.column or field.attname) for field in meta.concrete_fields
    }
