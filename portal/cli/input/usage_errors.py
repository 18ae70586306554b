"""What is said of a wrong option, argument or value: one sentence in the words of the product, not of the library."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import click

from portal.cli.input.values import OneOf


def said(error: click.UsageError) -> str:
    """The error as one line: the command, what is wrong, and where its usage is shown."""
    path = error.ctx.command_path if error.ctx else "airelays"
    return f"{path}: {_sentence(error)} `{path} --help` shows the usage."


def no_such_command(name: str, names: Iterable[str], ctx: click.Context) -> click.UsageError:
    return click.UsageError(f"there is no command {name!r}.{_nearest(name, names)}", ctx)


def too_many(words: Iterable[str], ctx: click.Context) -> click.UsageError:
    return click.UsageError(f"does not take {' '.join(words)!r}.", ctx)


def _sentence(error: click.UsageError) -> str:
    if isinstance(error, click.NoSuchOption):
        known = {name for param in error.ctx.command.params for name in param.opts} if error.ctx else ()
        return f"there is no option {error.option_name!r}.{_nearest(error.option_name, known)}"
    if isinstance(error, click.BadOptionUsage):
        known_to = error.ctx.command.params if error.ctx else []
        option = next((one for one in known_to if error.option_name in (*one.opts, *one.secondary_opts)), None)
        takes_value = option is not None and not getattr(option, "is_flag", False)
        return f"{error.option_name} {'needs a value' if takes_value else 'takes no value'}."
    if isinstance(error, click.MissingParameter) and error.param is not None:
        kind = error.param.type
        return f"{_name(error.param, error.ctx)} is missing{f': {kind.said()}' if isinstance(kind, OneOf) else ''}."
    if isinstance(error, click.BadParameter):
        hint = error.param_hint if isinstance(error.param_hint, str) else None
        name = hint or (_name(error.param, error.ctx) if error.param is not None else "a value")
        return f"{name} {' '.join(error.message.split()).rstrip('.')}."
    return " ".join(error.format_message().split())


def _name(param: click.Parameter, ctx: click.Context | None) -> str:
    """An option by its long name, an argument as the usage shows it."""
    if isinstance(param, click.Option):
        return max(param.opts, key=len)
    return param.make_metavar(ctx or click.Context(click.Command(None))).strip("[]")


def _nearest(name: str, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, sorted(names))
    return f" Did you mean {' or '.join(found)}?" if found else ""
