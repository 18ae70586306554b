"""What the commands share: the decorators that make them, and the options that every one of them takes.

`--config`, `--env-file` and `--data-dir` may stand before a command or after it; the last one wins. They become
environment variables, which stand above the configuration file and are passed on to worker processes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from portal.cli.input import usage_errors, values

_F = TypeVar("_F", bound=Callable[..., Any])


def _name_in_environment(variable: str) -> Callable[[click.Context, click.Parameter, Path | None], None]:
    def remember(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
        if value is not None and not context.resilient_parsing:
            os.environ[variable] = str(value)

    return remember


def _path(name: str, variable: str, text: str, is_folder: bool = False) -> click.Option:
    return click.Option(
        [name],
        type=values.Place(is_folder),
        metavar="DIR" if is_folder else "PATH",
        expose_value=False,
        callback=_name_in_environment(variable),
        help=text,
    )


def _shared() -> list[click.Parameter]:
    return [
        _path("--config", "AIRELAYS_CONFIG", "Configuration file."),
        _path("--env-file", "AIRELAYS_ENV_FILE", "File to read in the place of .env in this folder."),
        _path("--data-dir", "AIRELAYS_DATA_DIR", "Folder of the database, the keys and the uploads.", is_folder=True),
    ]


class _Named(click.Command):
    """A command that errors of its options name: the library leaves that out of some."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            raise


class Command(_Named):
    """A command that takes the shared options beside its own."""

    allow_extra_args = True  # and refuses them itself

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.params = [*self.params, *_shared()]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        more = super().parse_args(ctx, args)
        if more and not ctx.resilient_parsing:
            raise usage_errors.too_many(more, ctx)
        return more


class Group(_Named, click.Group):
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
            raise usage_errors.no_such_command(name, self.list_commands(ctx), ctx)
        return super().resolve_command(ctx, args)


def command(name: str, **settings: Any) -> Callable[[Callable[..., None]], Command]:
    """Make a command of a function. Its docstring is the help; `main` knows it by the name of its file."""
    return click.command(name, cls=Command, **settings)


def group(name: str, **settings: Any) -> Callable[[Callable[..., None]], Group]:
    """Make a command of a function that has commands of its own: `@command.command("show")`."""
    return click.group(name, cls=Group, **settings)


def json_option(function: _F) -> _F:
    return click.option("--json", "as_json", is_flag=True, help="One JSON document, for programs.")(function)


def set_flags(**flags: object) -> None:
    """Put flags of a command that stand for settings into the environment, which stands above the files.

    None: not given. `no_auth`: a flag for `require_bearer_auth`.
    """
    if flags.pop("no_auth", False):
        flags["require_bearer_auth"] = "false"
    for name, value in flags.items():
        if value is not None:
            os.environ[f"AIRELAYS_{name.upper()}"] = str(value)
