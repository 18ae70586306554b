"""`airelays import`: users, tokens, channels, prices, balances and codes of another program."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from portal.cli import options, output, startup
from portal.cli.errors import Refusal
from portal.cli.input import values
from relay.importers.sources import KEY_VARIABLES, PROGRAMS

if TYPE_CHECKING:
    from relay.importers.report import Report

_SHOWN: Final = 40  # remarks of one level on a terminal
_NAMED: Final = 3  # things of which one remark is shown
_HEADINGS: Final = {"left_out": "Not carried over", "changed": "Different here", "note": "Good to know"}
_LEFT: Final = "Stays Here"  # the first of these, of an undo


@options.group("import")
def command() -> None:
    """Move in from another program, such as one-api.

    Its users, tokens, channels, prices and balances come along.

    Nothing is written without --apply: the report says what would be. It can be run again at any time.
    """


def _program(name: str) -> None:
    """Make the command of one program."""

    @command.command(name, help=f"Import a database of {name}: the path of an SQLite file, mysql:// or postgres://.")
    @click.argument("source", type=values.Text("a path or an address; - asks for it", 2000, secret=True))
    @click.option("--apply", is_flag=True, help="Write; otherwise only report.")
    @click.option("--name", type=values.Text("a name of 1 to 40 characters", 40), help="Of the installation there.")
    @click.option("--staff", is_flag=True, help="Administrators there become staff here.")
    @click.option("--merge", multiple=True, metavar="USER", help="The user of this name here is the same person.")
    @click.option("--allow", multiple=True, metavar="ADDRESS", help="A private address that channels may use.")
    @click.option("--direct", is_flag=True, help="Enable channels whose proxy cannot be used here without one.")
    @click.option("--usage", is_flag=True, help="Carry the log over, as sums by day.")
    @click.option(
        "--logs", type=values.Text("a path or an address", 2000, secret=True), help="Where the log is, if apart."
    )
    @_own_options(name)
    @options.json_option
    def run(source: str, logs: str | None, as_json: bool, merge: tuple[str, ...], **chosen: Any) -> None:
        address = click.prompt("Source", hide_input=True) if source == "-" else source
        beside = chosen.pop("models_file", None) or logs or ""
        key = click.prompt("Key", hide_input=True) if chosen.pop("ask_key", False) else ""

        def work() -> Report:
            from relay.importers.pipeline import carry_over
            from relay.importers.run import Options
            from relay.importers.sources import open_source

            opened = open_source(name, address, beside, key)
            try:
                wanted = {key: value for key, value in chosen.items() if value is not None}
                return carry_over(opened, Options(merge=frozenset(merge), **wanted), opened.shown)
            finally:
                opened.close()

        _tell(_done(work), as_json)


def _own_options(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that a program has beside those of all."""

    def add(run: Callable[..., None]) -> Callable[..., None]:
        if name in KEY_VARIABLES:
            names = " or ".join(KEY_VARIABLES[name])
            text = f"Ask for what upstream keys are encrypted with; otherwise it is read from {names}."
            run = click.option("--ask-key", is_flag=True, help=text)(run)
        if name == "litellm":
            text = "LiteLLM's config.yaml, when models are in it."
            run = click.option("--models", "models_file", type=values.Text("a path", 2000), metavar="FILE", help=text)(
                run
            )
        return run

    return add


for _name in PROGRAMS:
    _program(_name)


@command.command("undo")
@click.argument("name", type=values.Text("the name of an installation", 40))
@click.option("--apply", is_flag=True, help="Write; otherwise only report.")
@options.json_option
def undo(name: str, apply: bool, as_json: bool) -> None:
    """Take back what was imported, as far as it was not used since."""

    def work() -> Report:
        from relay.importers.undo import take_back

        return take_back(name, apply=apply)

    _tell(_done(work), as_json, undone=True)


def _done(work: Callable[[], Report]) -> Report:
    """Do it with the database. What cannot be done is one line."""
    with startup.database(), output.progress("Importing"):
        from relay.importers.description import SourceUnreadable
        from relay.importers.mapping import ImportRefused

        try:
            return work()
        except (SourceUnreadable, ImportRefused) as error:
            raise Refusal(str(error)) from None


def _tell(report: Report, as_json: bool, undone: bool = False) -> None:
    if as_json:
        output.as_json(report.as_json())
        return
    from relay.importers.report import KINDS

    output.title(("Undo of an Import" if undone else "Import") + ("" if report.applied else " (nothing is written)"))
    output.section("Source")
    output.field("Program", report.program)
    if not undone:
        output.field("Database", report.source)
    output.field("Name here", report.installation)
    output.section("Rows")
    for kind, title in KINDS.items():
        if kind in report.counts:
            found = report.counts[kind]
            told = [f"{found.new:,} new", f"{found.changed:,} changed", f"{found.unchanged:,} as they were"]
            told += [f"{found.left_out:,} left out"]
            taken = [
                f"{found.removed:,} taken back",
                f"{found.left_out:,} {'stays' if found.left_out == 1 else 'stay'}",
            ]
            output.field(title.capitalize(), ", ".join(taken if undone else told))
    output.field("Balances", _moved(report.balances))
    output.field("Quotas", _moved(report.quotas))
    for level, heading in _HEADINGS.items():
        _remarks(report, level, _LEFT if undone and level == "left_out" else heading)
    output.next_steps(_next_steps(report, undone))


def _moved(amount: int) -> str:
    from portal.lib import money

    if not amount:
        return "as they were"
    return f"{money.exact(amount)} added" if amount > 0 else f"{money.exact(-amount)} taken back"


def _next_steps(report: Report, undone: bool) -> list[str]:
    if not report.applied:
        if report.changes or report.balances or report.quotas:
            return ["Run the same command with --apply to do it."]
        return ["Nothing to do: all of it is here." if not undone else "Nothing to do: all that can be is taken back."]
    if undone:
        return []
    return [
        f"Look whether channels and keys are in order: {startup.own_command('doctor')}",
        "Run it again for what is new there, until everybody has moved.",
        f"To take it back as long as it was not used: {startup.own_command('import', 'undo', report.installation)}",
    ]


def _remarks(report: Report, level: str, heading: str) -> None:
    """The remarks of one level, each text once with the first things that it is about."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in report.lines:
        if line.level == level:
            found.setdefault((line.kind, line.text), []).append(line.name or line.id)
    if not found:
        return
    output.section(heading)
    for (kind, text), names in list(found.items())[:_SHOWN]:
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        about = f"{kind} {', '.join(names[:_NAMED])}{more}: " if any(names) else ""
        output.line(f"{about}{text}")
    if len(found) > _SHOWN:
        output.line(f"… and {len(found) - _SHOWN:,} more remarks: --json has all of them.")
