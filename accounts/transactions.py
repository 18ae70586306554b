"""Read-only transactions that see several tables in one consistent state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.db import connection, transaction

_WEEK: Final = 604_800  # seconds


@contextmanager
def consistent_read() -> Iterator[None]:
    """A transaction that sees the database as it is now and blocks no writers."""
    if connection.vendor == "sqlite" and not connection.in_atomic_block:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN DEFERRED")  # Django's own BEGIN would take the write lock
            try:
                yield
            finally:
                cursor.execute("ROLLBACK")
        return
    if connection.vendor == "mysql" and not connection.in_atomic_block:
        with connection.cursor() as cursor:
            # For the next transaction only; otherwise Django uses READ COMMITTED.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    with transaction.atomic():
        if connection.vendor == "postgresql" and len(connection.savepoint_ids) == 0:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield


@contextmanager
def patient_read() -> Iterator[None]:
    """The same for a command, which may wait for something else meanwhile, such as a dump, as long as that takes.

    In others the server ends a transaction in which nothing happens: also one that is `unhurried`, after an hour.
    """
    with consistent_read():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                if connection.pg_version >= 170000:  # type: ignore[attr-defined]  # of this vendor
                    cursor.execute("SET LOCAL transaction_timeout = 0")
        elif connection.vendor == "mysql":
            with connection.cursor() as cursor:  # for the connection: there are no limits of one transaction
                cursor.execute(f"SET SESSION wait_timeout = {_WEEK}")
                if connection.mysql_is_mariadb:  # type: ignore[attr-defined]  # of this vendor
                    cursor.execute("SET SESSION idle_transaction_timeout = 0")
        yield
