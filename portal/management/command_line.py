"""Runs a command of `manage.py`. An error of the database is one line, not a traceback."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Final, NoReturn

from django.core.management import ManagementUtility, get_commands
from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError, InterfaceError, connection
from django.db.backends.signals import connection_created

from portal import limits
from portal.lib.texts import reason
from portal.services.databases import HOUR, mysql_waits
from portal.services.timeouts import statement_timeout

_SERVING: Final = (["serve"], ["start"], ["runserver"])


@contextmanager
def unhurried() -> Iterator[None]:
    """Inside, a statement may take as long as the database answers others: a migration, or a proof of the books.

    What is limited for each connection is so to an hour then: in MySQL a statement and a lock, in PostgreSQL a pause
    between two statements, which on a busy machine the command itself may need.
    """
    options = connection.settings_dict["OPTIONS"]
    usual = mysql_waits(limits.QUERY_SECONDS, limits.DATABASE_SECONDS) if connection.vendor == "mysql" else {}
    before = {wait: value for wait, value in usual.items() if options.get(wait) == value}
    options.update({wait: value for wait, value in mysql_waits(HOUR, HOUR).items() if wait in before})
    pooled = connection.vendor == "postgresql"
    if before or pooled:
        connection.close()
    if pooled:
        connection_created.connect(_may_pause)
    try:
        with statement_timeout(None):
            yield
    finally:
        options.update(before)
        connection_created.disconnect(_may_pause)
        if before or pooled:
            connection.close()
        if pooled:
            connection.close_pool()  # type: ignore[attr-defined]  # nobody else is given one of these connections


def _may_pause(connection: Any, **signal: object) -> None:
    if connection.vendor != "postgresql":
        return  # one beside the portal's own, to which a move copies
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{HOUR}s'")


def run(arguments: list[str]) -> None:
    """Run a command. Exits with 1 after an error of the database; with `--traceback` it is raised."""
    try:
        with nullcontext() if arguments[1:2] in _SERVING else unhurried():
            execute_from_command_line(arguments)
    except (DatabaseError, InterfaceError) as error:
        if "--traceback" in arguments:
            raise
        said = f"the database broke off: {_reason(error)}. Run it again; --traceback shows where it happened."
        try:
            connection.close()
            connection.ensure_connection()
        except (DatabaseError, InterfaceError):
            said = database_is_away(error)
        sys.stderr.write(f"airelays: {said}\n")
        sys.exit(1)


def database_is_away(error: Exception) -> str:
    """What to say of an error with which the database answers nothing at all, in one line."""
    return f"the database cannot be used: {_reason(error)}. Check that it runs, and AIRELAYS_DATABASE_URL."


def _reason(error: Exception) -> str:
    return reason(error).splitlines()[0].rstrip(".")


class _Utility(ManagementUtility):
    """Django's, which says of a wrong command or option in one line what is wrong, and ends with 2."""

    def fetch_command(self, subcommand: str) -> BaseCommand:
        if subcommand not in (known := get_commands()):
            near = difflib.get_close_matches(subcommand, known)
            meant = f" Did you mean {' or '.join(near)}?" if near else ""
            sys.stderr.write(
                f"{self.prog_name}: there is no command {subcommand!r}.{meant} `{self.prog_name} help` lists them.\n"
            )
            sys.exit(2)
        command: BaseCommand = super().fetch_command(subcommand)
        make = command.create_parser

        def create_parser(*names: str, **options: Any) -> CommandParser:
            parser: CommandParser = make(*names, **options)
            parser.error = partial(_refuse, parser.prog)  # type: ignore[method-assign]
            return parser

        command.create_parser = create_parser  # type: ignore[method-assign]
        return command


def _refuse(program: str, message: str) -> NoReturn:
    sys.stderr.write(f"{program}: {message.removeprefix('Error: ')}. `{program} --help` shows the usage.\n")
    sys.exit(2)


def execute_from_command_line(arguments: list[str]) -> None:
    _Utility(arguments).execute()
