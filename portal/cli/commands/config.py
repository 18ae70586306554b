"""`airelays config`: channels, models, prices, groups and permissions as a file, compared and applied."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from portal.cli import options, output, startup
from portal.cli.errors import Refusal
from portal.cli.input import values

_NAMED: Final = 3  # rows of a kind that are named where they only stay
_FILE = click.argument("file", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True))
_USER = click.option(
    "--user", "username", type=values.USER, metavar="USER", help="Who does it; otherwise the only superuser."
)
_PRUNE = click.option(
    "--prune", is_flag=True, help="Delete what is not in the file, of sections that it has; prices are never deleted."
)


@options.group("config")
def command() -> None:
    """Keep channels, models, prices and groups as a file."""


@command.command("export")
@_USER
def export(username: str | None) -> None:
    """Print what is configured, as TOML. It has no secret: keys are named, and may refer to env:NAME or file:PATH."""
    with startup.database():
        from relay.manage.configuration import document
        from relay.manage.configuration import export as exporting

        click.echo(_refused(lambda: document.write(exporting.export(_request(username)))), nl=False)


@command.command("plan")
@_FILE
@_PRUNE
@_USER
@click.option("--exit-code", is_flag=True, help="Exit with 2 if there is anything to change.")
@options.json_option
def plan(file: Path, prune: bool, username: str | None, exit_code: bool, as_json: bool) -> None:
    """Show what a file would change. Changes nothing."""
    with startup.database():
        from relay.manage.configuration.document import read
        from relay.manage.configuration.plan import make_plan

        text = _text(file)
        found = _refused(lambda: make_plan(_request(username), read(text), prune=prune))
        _tell("Plan", found, as_json)
    sys.exit(2 if exit_code and found.changes else 0)


@command.command("apply")
@_FILE
@_PRUNE
@_USER
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.json_option
def apply(file: Path, prune: bool, username: str | None, yes: bool, as_json: bool) -> None:
    """Make what a file says, all of it or nothing. The portal that runs notices at once."""
    with startup.database():
        from relay.manage.configuration import apply as applying
        from relay.manage.configuration.document import read
        from relay.manage.configuration.plan import make_plan

        text, wanted = _text(file), None
        if not yes:
            if not sys.stdin.isatty():
                raise Refusal("Nobody can be asked here: add --yes, after a look at `airelays config plan`.", 2)
            wanted = _refused(lambda: make_plan(_request(username), read(text), prune=prune))
            _tell("Plan", wanted, False)
            if not wanted.changes:
                return
            click.confirm("Apply this?", abort=True)
        found = _refused(lambda: applying.apply(_request(username), read(text), prune=prune, agreed=wanted))
        _tell("Applied", found, as_json)


def _text(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise Refusal(f"{file} cannot be read: {error.strerror}.", 2) from None
    except ValueError:
        raise Refusal(f"{file} is not text in UTF-8.", 2) from None


def _request(username: str | None) -> Any:
    """A request of the person who does it, for the pages of the administration."""
    from django.http import HttpRequest

    from portal.cli.people import user_named

    request: Any = HttpRequest()
    request.method, request.user = "POST", user_named(username)
    return request


def _refused(work: Any) -> Any:
    from relay.manage.requests.problems import Problem

    try:
        return work()
    except Problem as error:
        raise Refusal(error.message) from None


def _tell(title: str, plan: Any, as_json: bool) -> None:
    if as_json:
        output.as_json(
            {"changes": [one.as_json() for one in plan.changes], "not_in_the_file": plan.left, "notes": plan.notes}
        )
        return
    output.title(title)
    output.section("Changes")
    for line in plan.lines():
        output.line(line)
    if not plan.changes:
        output.line("Nothing: everything is as the file says.")
    if plan.left:
        output.section("Not in the File")
        output.line("These stay as they are; --prune deletes those of sections that the file has, but for prices.")
        for line in _in_short(plan.left):
            output.line(line)
    if plan.notes:
        output.section("Notes")
        for line in plan.notes:
            output.line(line)


def _in_short(titles: list[str]) -> Iterator[str]:
    """Rows such as `model “gpt”`, a line for each kind of them."""
    kinds: dict[str, list[str]] = {}
    for title in titles:
        kind, _space, name = title.partition(" ")
        kinds.setdefault(kind, []).append(name)
    for kind, names in kinds.items():
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        yield f"{kind} {', '.join(names[:_NAMED])}{more}"
