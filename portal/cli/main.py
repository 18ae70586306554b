"""The entry point of `airelays`: finds the command, and turns every error into one line and an exit code."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from typing import Final

import click

from portal import __version__
from portal.cli.options import Group

NAMES: Final = (
    "init", "serve", "login", "logout", "status", "doctor", "token", "accounts", "models", "usage", "connect",
    "password", "manage", "completion",
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit. Ctrl-C ends it without a traceback."""
    try:
        code = airelays.main(args=arguments, prog_name="airelays", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "airelays"
        said = " ".join(error.format_message().split()).rstrip(".?") + "."
        click.echo(f"{path}: {said} `{path} --help` tells more.", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
