"""`airelays restore`: a portal as a backup has it, in an empty place."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import click

from portal.backup.about import CannotRestore
from portal.backup.age import Unreadable
from portal.backup.archive import Damaged, is_encrypted
from portal.backup.restore import Restored, empty_place, load, put_in_place, settings_for, unpack_into
from portal.cli import options, output, startup
from portal.cli.errors import Refusal
from portal.cli.input import passphrase
from portal.config import Config
from portal.installation.command import here


@options.command("restore")
@click.argument("file", metavar="FILE")
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="Of an encrypted backup: its first line.")
@options.json_option
def command(file: str, passphrase_file: Path | None, as_json: bool) -> None:
    """Restore a backup into an empty data folder.

    FILE may be `-` for the standard input.

    Where settings name a database, it must be empty as well. A backup of an older version is brought up to date. Exits
    with 1 if ledger or stored files do not agree after all was restored.
    """
    config = startup.settings()
    line = output.StatusLine()
    try:
        with _opened(file) as stream:
            encrypted = is_encrypted(stream)
            if passphrase_file and not encrypted:  # perhaps somebody has put another one in its place
                raise Refusal("The backup is not encrypted. If that is right, leave --passphrase-file out.", 2)
            secret = passphrase.known(passphrase_file) if encrypted else None
            done, placed = _restored(config, stream, secret, line)
    except (CannotRestore, Damaged, Unreadable) as error:
        raise Refusal(str(error)) from None
    except OSError as error:
        raise Refusal(f"The backup cannot be restored: {error.strerror or error}.") from None
    finally:
        line.clear()
    _report(config, done, placed, as_json)
    if done.differences:
        sys.exit(1)


def _opened(file: str) -> io.BufferedReader:
    if file == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise Refusal("Nothing is piped in. Name a file.", 2)
        return io.BufferedReader(io.FileIO(sys.stdin.fileno(), closefd=False))
    path = Path(file).expanduser()
    if not path.is_file():
        raise Refusal(f"There is no file {path}.", 2)
    return path.open("rb")


def _restored(
    config: Config, stream: io.BufferedReader, secret: str | None, line: output.StatusLine
) -> tuple[Restored, Path | None]:
    with empty_place(config) as staging:
        line.tell("Unpacking the backup …")
        summary = unpack_into(staging, stream, secret, config)
        line.tell("Restoring the database …")
        settings_for(staging, config)
        with startup.refusals():
            from portal.backup.programs import ProgramFailed
            from portal.management.command_line import unhurried

            try:
                with unhurried():
                    done = load(staging, summary)
            except ProgramFailed as error:
                raise Refusal(str(error)) from None
        return done, put_in_place(staging, config.data_dir)


def _report(config: Config, done: Restored, placed: Path | None, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = {
            "data_dir": str(config.data_dir),
            "files": done.files,
            "bytes": done.bytes,
            "migrated": done.migrated,
            "ledger_entries": done.entries,
            "differences": list(done.differences),
            "settings": str(placed) if placed else None,
        }
        output.as_json(document)
        return
    output.title("Restored")
    output.section("Portal")
    output.field("Data folder", config.data_dir)
    output.field("Stored files", f"{done.files:,}, {done.bytes:,} bytes")
    output.field("Ledger", f"{done.entries:,} entries")
    output.field("Migrated", "yes: the backup is of an older version" if done.migrated else "not needed")
    if done.differences:
        output.section("Not as they should be")
        for one in done.differences[:20]:
            output.line(one)
    else:
        output.field("Verified", "the ledger balances; files and their records agree")
    steps = [f"Compare the settings of the old portal, in {placed}, with yours."] if placed else []
    start = here("serve", data_dir=config.data_dir)
    output.next_steps([*steps, f"Stop the old portal, if it still runs, and start this one: {start}"])
