"""Runs a command of `manage.py`. A database that is away is one line, not a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Final

from django.core.management import execute_from_command_line
from django.db import DatabaseError, InterfaceError, connection

from portal import limits
from portal.services.databases import HOUR, mysql_waits
from portal.services.timeouts import statement_timeout

_SERVING: Final = (["serve"], ["start"], ["runserver"])


@contextmanager
def unhurried() -> Iterator[None]:
    """Inside, a statement may take as long as the database answers others: a migration, or a proof of the books.

    MySQL has limits for each connection, which are an hour then.
    """
    options = connection.settings_dict["OPTIONS"]
    usual = mysql_waits(limits.QUERY_SECONDS, limits.DATABASE_SECONDS) if connection.vendor == "mysql" else {}
    before = {wait: value for wait, value in usual.items() if options.get(wait) == value}
    options.update({wait: value for wait, value in mysql_waits(HOUR, HOUR).items() if wait in before})
    if before:
        connection.close()
    try:
        with statement_timeout(None):
            yield
    finally:
        options.update(before)
        if before:
            connection.close()


def run(arguments: list[str]) -> None:
    """Run a command. Exits with 1 when the database cannot be reached."""
    try:
        with nullcontext() if arguments[1:2] in _SERVING else unhurried():
            execute_from_command_line(arguments)
    except (DatabaseError, InterfaceError) as error:
        try:
            connection.close()
            connection.ensure_connection()
        except (DatabaseError, InterfaceError):
            sys.stderr.write(f"airelays: {database_is_away(error)}\n")
            sys.exit(1)
        raise


def database_is_away(error: Exception) -> str:
    """What to say of an error with which the database answers nothing at all, in one line."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"the database cannot be used: {reason}. Check that it runs, and AIRELAYS_DATABASE_URL."
