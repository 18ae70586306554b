"""The entry point of `airelays`: finds the command, and turns every error into one line and an exit code."""

from __future__ import annotations

import importlib
import importlib.util
import io
import sys
from collections.abc import Sequence
from typing import Final

import click

from portal import __version__
from portal.cli.errors import Refusal
from portal.cli.input.usage_errors import said
from portal.cli.options import Group

NAMES: Final = (
    "init", "serve", "login", "logout", "status", "doctor", "check", "token", "accounts", "models", "usage", "connect",
    "password", "import", "config", "backup", "restore", "move", "manage", "completion",
)  # fmt: skip
_COMMANDS: Final = "portal.cli.commands"


class _Commands(Group):
    """The commands by the names of their files, each loaded when it is called or its help is shown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in NAMES if importlib.util.find_spec(f"{_COMMANDS}.{name}") is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        found: click.Command = importlib.import_module(f"{_COMMANDS}.{cmd_name}").command
        return found


@click.group("airelays", cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="airelays", message="%(prog)s %(version)s")
def airelays() -> None:
    """A relay for AI APIs, run on your own machine: one address and one token for all of your clients."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code. Ctrl-C ends it without a traceback."""
    if any(not _is_text(word) for word in (sys.argv[1:] if arguments is None else arguments)):
        click.echo("airelays: an argument is not valid UTF-8.", err=True)
        return 2
    try:
        code = airelays.main(args=arguments, prog_name="airelays", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.UsageError as error:
        click.echo(said(error), err=True)
        return error.exit_code
    except Refusal as error:
        error.show()
        return error.code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        return 130
    return code if isinstance(code, int) else 0


def main() -> None:
    """Run the command that was typed, and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal may not have every character of a name
    try:
        code = run()
    finally:
        _close_database()
    sys.exit(code)


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _close_database() -> None:
    """SQLite puts all that was written into one file when its last connection is closed."""
    apps = sys.modules.get("django.apps")
    if apps is not None and apps.apps.ready:  # else the settings, which may be bad, would be read for it
        from django.db import connections

        connections.close_all()
