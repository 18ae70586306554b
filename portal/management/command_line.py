"""Runs a command of `manage.py`. A database that is away is one line, not a traceback."""

from __future__ import annotations

import sys

from django.core.management import execute_from_command_line
from django.db import DatabaseError, InterfaceError, connection


def run(arguments: list[str]) -> None:
    """Run a command. Exits with 1 when the database cannot be reached."""
    try:
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
