"""Compares what was copied with where it came from: rows of every table, sums of money, the ledger."""

from __future__ import annotations

from typing import Final

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from accounts.models import AuditEvent, Change
from portal.move.tables import Table, count
from relay.billing.ledger.verify import verify
from relay.models import ImportedRow, LedgerAccount, LedgerEntry, RemovedUsage, Reservation, UsageRecord

_HALF: Final = 2**32
_MONEY: Final[tuple[tuple[type[models.Model], tuple[str, ...]], ...]] = (
    (UsageRecord, ("cost", "shortfall", "upstream_cost")),
    (LedgerEntry, ("amount", "held")),
    (LedgerAccount, ("granted", "used", "reserved")),
    (Reservation, ("amount",)),
    (RemovedUsage, ("records", "cost", "shortfall")),
)
# What grows with every request, with every change that people make, and with every batch of an import.
_GROWING: Final = (UsageRecord, LedgerEntry, Change, AuditEvent, ImportedRow)


def rows_by_table(database: BaseDatabaseWrapper, tables: list[Table]) -> dict[str, int]:
    return {table.name: count(database, table) for table in tables}


def sums_of_money(database: BaseDatabaseWrapper) -> dict[str, int]:
    """Sums of the columns of money, by table and column, in nano-USD. In two halves: a whole one may leave 64 bits."""
    found = {}
    quote, divide = database.ops.quote_name, "DIV" if database.vendor == "mysql" else "/"
    for model, columns in _MONEY:
        name = model._meta.db_table
        halves = ", ".join(f"SUM({quote(one)} {divide} {_HALF}), SUM(MOD({quote(one)}, {_HALF}))" for one in columns)
        if database.vendor == "sqlite":
            halves = ", ".join(f"SUM({quote(one)} / {_HALF}), SUM({quote(one)} % {_HALF})" for one in columns)
        with database.cursor() as cursor:
            cursor.execute(f"SELECT {halves} FROM {quote(name)}")  # noqa: S608
            row = [int(value or 0) for value in cursor.fetchone()]
        for number, column in enumerate(columns):
            found[f"{name}.{column}"] = row[2 * number] * _HALF + row[2 * number + 1]
    return found


def differences(source: BaseDatabaseWrapper, target: BaseDatabaseWrapper, tables: list[Table]) -> list[str]:
    """What differs between both, in words. The target is the default database of this thread."""
    found = []
    for what, there, here in (
        ("rows", rows_by_table(source, tables), rows_by_table(target, tables)),
        ("in all", sums_of_money(source), sums_of_money(target)),
    ):
        found += [f"{name}: {here[name]} {what}, not {there[name]}" for name in there if there[name] != here[name]]
    report = verify()
    return found + [str(one) for one in report.differences]


def mark(database: BaseDatabaseWrapper) -> list[tuple[int, ...]]:
    """Numbers that differ once anything has been answered or changed since."""
    found = []
    with database.cursor() as cursor:
        for model in _GROWING:
            name = database.ops.quote_name(model._meta.db_table)
            cursor.execute(f"SELECT MAX(id), COUNT(*) FROM {name}")  # noqa: S608
            found.append(tuple(int(value or 0) for value in cursor.fetchone()))
    return found
