"""`airelays backup`: everything of a portal in one file, while it serves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from portal.cli import options, output, startup
from portal.cli.errors import Refusal
from portal.cli.input import passphrase

if TYPE_CHECKING:
    from portal.backup.create import Backup


@options.command("backup")
@click.argument("file", metavar="FILE")
@click.option("--encrypt", is_flag=True, help=f"Ask for a passphrase, or take that of {passphrase.VARIABLE}.")
@click.option("--passphrase-file", type=click.Path(path_type=Path), help="Encrypt with the first line of this file.")
@options.json_option
def command(file: str, encrypt: bool, passphrase_file: Path | None, as_json: bool) -> None:
    """Write everything into one FILE while the portal serves.

    It has database, keys, settings and stored files. FILE must not exist; `-` is the standard output.

    The portal may run meanwhile. Without --encrypt whoever has the file has the portal's keys. Exits with 1 if the
    ledger does not balance or stored files are damaged: the backup is made all the same.
    """
    secret = passphrase.new(passphrase_file) if encrypt or passphrase_file else None
    if file == "-":
        if sys.stdout.isatty():
            raise Refusal("A backup is not written to a terminal. Name a file.", 2)
        if as_json:
            raise Refusal("With --json, name a file.", 2)
    with startup.database():
        from portal.management.command_line import unhurried

        with unhurried():
            done = _made(file, secret)
    _report(file, done, secret is not None, as_json)
    if not done.is_sound:
        sys.exit(1)


def _made(file: str, secret: str | None) -> Backup:
    from portal.backup.create import BackupFailed, backup_to_file, backup_to_stream

    line = output.StatusLine()
    try:
        if file == "-":
            return backup_to_stream(sys.stdout.buffer, secret, line.tell)
        return backup_to_file(Path(file).expanduser(), secret, line.tell)
    except BackupFailed as error:
        raise Refusal(str(error)) from None
    except OSError as error:
        raise Refusal(f"The backup cannot be written: {error.strerror or error}.") from None
    finally:
        line.clear()


def _report(file: str, done: Backup, is_encrypted: bool, as_json: bool) -> None:
    warnings = []
    if done.differences:
        warnings.append(f"{output.counted(done.differences, 'figure')} of the ledger differ from its entries.")
    if done.damaged:
        warnings.append(f"{output.counted(len(done.damaged), 'stored file')} missing or damaged: {done.damaged[0]} …")
    if as_json:
        output.as_json(
            {
                "file": str(Path(file).expanduser().resolve()),
                "encrypted": is_encrypted,
                "bytes": done.bytes,
                "files": done.files,
                "gone": done.gone,
                "damaged": done.damaged,
                "ledger_differences": done.differences,
            }
        )
    elif file != "-":
        output.title("Backup")
        output.section("Backup")
        output.field("File", file)
        output.field("Size", f"{Path(file).expanduser().stat().st_size:,} bytes, {done.bytes:,} unpacked")
        output.field("Stored files", f"{done.files:,}")
        output.field("Checked", "every member by its sum" + ("" if done.differences else "; the ledger balances"))
        output.field("Encrypted", "yes: it cannot be restored without the passphrase" if is_encrypted else "no")
    if not is_encrypted and not as_json:
        click.echo("Whoever can read this backup has the portal's keys. --encrypt encrypts it.", err=True)
    for one in warnings:
        click.echo(one, err=True)
