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

from portal.services.database_errors import fault_of, one_line_is_enough, waited_for_the_pool
from portal.services.mysql import options as mysql
from portal.services.timeouts import statement_timeout

_SERVING: Final = (["serve"], ["start"], ["runserver"])


@contextmanager
def unhurried() -> Iterator[None]:
    """Inside, a statement may take as long as the database answers others: a migration, or a proof of the books.

    What is limited for each connection is so to an hour then: in MySQL a statement and a lock, in PostgreSQL a pause
    between two statements, which on a busy machine the command itself may need.
    """
    options = connection.settings_dict["OPTIONS"]
    before = {"init_command": options["init_command"]} if connection.vendor == "mysql" else {}
    if before:
        options["init_command"] = mysql.session(mysql.HOUR, mysql.HOUR, mysql.HOUR)
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
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{mysql.HOUR}s'")


def run(arguments: list[str]) -> None:
    """Run a command. Exits with 1 after an error of the database; with `--traceback` it is raised."""
    serving = arguments[1:2] in _SERVING
    if not serving:
        one_line_is_enough()
    try:
        with nullcontext() if serving else unhurried():
            execute_from_command_line(arguments)
    except (DatabaseError, InterfaceError) as error:
        if "--traceback" in arguments:
            raise
        said = database_is_away(error)
        if not waited_for_the_pool(error) and _answers():
            why = fault_of(error).reason
            said = f"the database broke off: {why}. Run it again; --traceback shows where it happened."
        sys.stderr.write(f"airelays: {said}\n")
        sys.exit(1)


def _answers() -> bool:
    try:
        connection.close()
        connection.ensure_connection()
    except (DatabaseError, InterfaceError):
        return False
    return True


def database_is_away(error: Exception) -> str:
    """What to say of an error with which the database answers nothing at all, in one line."""
    reason, remedy = fault_of(error)
    return f"the database cannot be used: {reason}. {remedy}"


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
