"""What the commands share: the decorators that make them, and the options that every one of them takes.

`--config` and `--data-dir` may stand before a command or after it; the last one wins. They become environment
variables, which stand above the configuration file and are passed on to worker processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])
_File = click.Path(dir_okay=False, path_type=Path)
_Folder = click.Path(file_okay=False, path_type=Path)


class _Port(click.IntRange):
    name = "port"  # in errors and in the help: “'x' is not a valid port.”


PORT: Final = _Port(1, 65535)
NETWORK_SCOPE: Final = click.Choice(["loopback", "private", "any"], case_sensitive=False)


def _name_in_environment(variable: str) -> Callable[[click.Context, click.Parameter, Path | None], None]:
    def remember(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
        if value is None or context.resilient_parsing:
            return
        try:
            os.environ[variable] = os.path.abspath(os.path.expanduser(value))  # noqa: PTH100, PTH111  # keeps links
        except FileNotFoundError:
            raise click.BadParameter("the folder that this shell is in is gone", context, parameter) from None

    return remember


def _shared() -> list[click.Parameter]:
    return [
        click.Option(
            ["--config"],
            type=_File,
            metavar="PATH",
            expose_value=False,
            callback=_name_in_environment("AIRELAYS_CONFIG"),
            help="Configuration file.",
        ),
        click.Option(
            ["--data-dir"],
            type=_Folder,
            metavar="DIR",
            expose_value=False,
            callback=_name_in_environment("AIRELAYS_DATA_DIR"),
            help="Folder of the database, the keys and the uploads.",
        ),
    ]


class Command(click.Command):
    """A command that takes the shared options beside its own."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params = [*self.params, *_shared()]


class Group(click.Group):
    """A command with commands of its own. A name that is none of them is an error that names the nearest."""

    command_class = Command

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params = [*self.params, *_shared()]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing and not name.startswith("-"):
            raise click.exceptions.NoSuchCommand(name, possibilities=self.list_commands(ctx), ctx=ctx)
        return super().resolve_command(ctx, args)


def command(name: str, **settings: Any) -> Callable[[Callable[..., None]], Command]:
    """Make a command of a function. Its docstring is the help; `main` knows it by the name of its file."""
    return click.command(name, cls=Command, **settings)


def group(name: str, **settings: Any) -> Callable[[Callable[..., None]], Group]:
    """Make a command of a function that has commands of its own: `@command.command("show")`."""
    return click.group(name, cls=Group, **settings)


def json_option(function: _F) -> _F:
    return click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")(function)


def one_of(values: Iterable[str]) -> click.Choice[str]:
    return click.Choice(list(values), case_sensitive=False)


def set_flags(**flags: object) -> None:
    """Put flags of a command that stand for settings into the environment, which stands above the files.

    None: not given. `no_auth`: a flag for `require_bearer_auth`.
    """
    if flags.pop("no_auth", False):
        flags["require_bearer_auth"] = "false"
    for name, value in flags.items():
        if value is not None:
            os.environ[f"AIRELAYS_{name.upper()}"] = str(value)
