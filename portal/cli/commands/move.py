"""`airelays move`: copy the portal's database into another one, and switch to it without losing a request."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from portal.cli import options, output, startup
from portal.cli.errors import Refusal
from portal.lib.money import show

if TYPE_CHECKING:
    from portal.move.move import Moved

_SQLITE: Final = "sqlite"
_PAUSE: Final = 0.2  # seconds between two looks of progress


@options.command("move")
@click.argument("database_url", metavar="DATABASE_URL")
@options.json_option
def command(database_url: str, as_json: bool) -> None:
    """Copy everything into another database, and switch to it.

    DATABASE_URL is postgresql://…, mysql://…, `sqlite` for the file in the data folder, or `-` to be asked for it, so
    that its password is in no list of processes. The database must be empty. The one in use is only read.

    While the portal runs, the copy is of the moment at which it begins. Stop the portal and run the same command
    again: it copies what has changed since, and finishes. A run that was interrupted is continued in the same way.
    """
    url = _asked() if database_url.strip() == "-" else database_url.strip()
    with startup.database():
        from portal.management.command_line import unhurried

        target, name = _target(url)
        began = time.monotonic()
        with unhurried():
            done = _moved(target, name)
    seconds = time.monotonic() - began
    if as_json:
        output.as_json(_document(done, name, seconds))
    else:
        _print(done, name, seconds, is_sqlite=url.partition(":")[0] == _SQLITE)


def _asked() -> str:
    if sys.stdin is not None and sys.stdin.isatty():
        answer: str = click.prompt("Database URL", hide_input=True)
        return answer.strip()
    return sys.stdin.readline(4096).strip() if sys.stdin is not None else ""


def _target(url: str) -> tuple[Any, str]:
    """The database that a URL names, and what to call it: without its password. Exits with 2 when it names none."""
    from portal.move.move import connects, sqlite_file
    from portal.services.databases import check_database_url
    from portal.services.other_database import connect_sqlite, connect_url

    if url.partition(":")[0] == _SQLITE:
        path = sqlite_file()
        if url not in {_SQLITE, "sqlite:", "sqlite://"}:
            raise Refusal(f"A portal on SQLite has its database at {path}: write `{_SQLITE}` alone.", 2)
        _refuse_same_file()
        return connect_sqlite(path), str(path)
    if not url:
        raise Refusal("No database URL was given.", 2)
    try:
        check_database_url(url)
    except ValueError as error:
        raise Refusal(f"DATABASE_URL: {error}", 2) from None
    target = connect_url(url)
    about = target.settings_dict
    name = f"{about['NAME']} at {about['HOST'] or 'this machine'}"
    if why := connects(target):
        raise Refusal(f"The database {name} cannot be connected to: {why}")
    return target, f"the database {name}"


def _refuse_same_file() -> None:
    from django.db import connection

    if connection.vendor == "sqlite":
        raise Refusal("The portal is on SQLite already. Name another database, such as postgresql://…", 2)


def _moved(target: Any, name: str) -> Moved:
    from portal.move.move import MoveRefused, move

    line = output.StatusLine()
    told = 0.0

    def tell(table: str, rows: int) -> None:
        nonlocal told
        if table and time.monotonic() - told < _PAUSE:
            return
        told = time.monotonic()
        line.tell(f"Copying {table}: {rows:,} rows …" if table else "Comparing both databases …")

    line.tell("Making the tables …")
    try:
        return move(target, name, tell)
    except MoveRefused as error:
        raise Refusal(str(error)) from None
    finally:
        line.clear()


def _document(done: Moved, name: str, seconds: float) -> dict[str, Any]:
    return {
        "finished": done.finished,
        "target": name,
        "state_of": done.at.isoformat(timespec="seconds"),
        "rows": done.rows,
        "copied": done.copied,
        "replaced": done.replaced,
        "seconds": round(seconds, 1),
        "nano_usd": done.money,
    }


def _print(done: Moved, name: str, seconds: float, is_sqlite: bool) -> None:
    from django.conf import settings

    output.title("Moved" if done.finished else "Copied")
    output.section("Copy")
    output.field("Database", name.removeprefix("the database "))
    output.field("Rows", f"{done.rows:,}, as many in each table as in the old one")
    output.field("Written", f"{done.copied:,} in {seconds:.1f} s")
    output.field("Charged", show(done.money["relay_usagerecord.cost"] - done.money["relay_usagerecord.shortfall"]))
    output.field("Ledger", "verified")
    if done.replaced:
        output.field("Replaced", f"characters in {output.counted(done.replaced, 'row')} that PostgreSQL cannot store")
    output.field("Uploads, keys", f"stay in {settings.DATA_DIR}")
    setting = "Take AIRELAYS_DATABASE_URL out of" if is_sqlite else "Set AIRELAYS_DATABASE_URL to it in"
    switch = [
        f"{setting} the portal's settings.",
        f"Start the portal. The old database stays as it is; requests from then on are in {name} alone.",
    ]
    if not done.finished:
        output.section("The portal was running")
        output.line(f"The copy is of {done.at:%Y-%m-%d %H:%M:%S} UTC. What has been written since is missing in it.")
        switch = ["Stop the portal.", "Run the same command again. It copies what has changed, and finishes.", *switch]
    output.next_steps(switch)
