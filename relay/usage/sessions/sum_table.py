"""Writes rows of sums: what is added to those that exist already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection, models


@dataclass(frozen=True, slots=True)
class SumTable:
    """A table of sums, and its columns in the order of its rows. All names are our own."""

    table: type[models.Model]
    key: tuple[str, ...]  # a unique constraint
    sums: tuple[str, ...]
    least: tuple[str, ...] = ()  # columns that keep the smallest value
    greatest: tuple[str, ...] = ()  # and the largest
    texts: tuple[str, ...] = ()  # that are replaced only while they are empty
    fixed: tuple[str, ...] = ()  # that the first row sets

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.key, *self.sums, *self.least, *self.greatest, *self.texts, *self.fixed)

    def upsert(self, rows: Iterable[Sequence[Any]]) -> None:
        """Insert rows, or add them to those with the same key."""
        values = list(rows)
        if values:
            with connection.cursor() as cursor:
                cursor.executemany(self._statement(), values)

    def _statement(self) -> str:
        quote = connection.ops.quote_name
        mysql, sqlite = connection.vendor == "mysql", connection.vendor == "sqlite"
        table = quote(self.table._meta.db_table)

        def old(name: str) -> str:
            return quote(name) if mysql else f"{table}.{quote(name)}"

        def new(name: str) -> str:
            return f"VALUES({quote(name)})" if mysql else f"excluded.{quote(name)}"

        smaller, larger = ("MIN", "MAX") if sqlite else ("LEAST", "GREATEST")
        changes = [
            *(f"{quote(name)} = {old(name)} + {new(name)}" for name in self.sums),
            *(f"{quote(name)} = {smaller}({old(name)}, {new(name)})" for name in self.least),
            *(f"{quote(name)} = {larger}({old(name)}, {new(name)})" for name in self.greatest),
            *(f"{quote(name)} = COALESCE(NULLIF({old(name)}, ''), {new(name)})" for name in self.texts),
        ]
        columns = ", ".join(quote(name) for name in self.columns)
        placeholders = ", ".join(["%s"] * len(self.columns))
        conflict = (
            "ON DUPLICATE KEY UPDATE"
            if mysql
            else f"ON CONFLICT ({', '.join(quote(name) for name in self.key)}) DO UPDATE SET"
        )
        return f"INSERT INTO {table} ({columns}) VALUES ({placeholders}) {conflict} {', '.join(changes)}"  # noqa: S608
