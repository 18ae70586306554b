"""Restores a backup into an empty place: a data folder without a portal, and an empty database.

Everything is unpacked, checked and brought up to date in a folder of its own inside the data folder, and put into its
place when all of it is right. One that breaks off leaves nothing that looks like a portal.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from portal.backup.about import DUMPS, CannotRestore, check
from portal.backup.archive import unpack
from portal.config import Config
from portal.installation.lock import FolderInUse, FolderLock
from portal.lib import crypto

_PREFIX: Final = ".restoring-"
_SETTINGS: Final = "settings-of-backup"
_KEYS: Final = ("secret_key", "encryption_keys", "token_key")
# What makes a folder one of a portal. What the last two have, SQLite would write into a database that is put there.
_OF_PORTAL: Final = (*crypto.OWN_FILES, "state.sqlite3-wal", "state.sqlite3-journal")


@contextmanager
def empty_place(config: Config) -> Iterator[Path]:
    """A folder to unpack into; inside, no portal can begin on the data folder. Raises CannotRestore, OSError."""
    folder = config.data_dir
    crypto.make_private(folder)
    lock = FolderLock(folder)
    try:
        lock.hold(patience=0)
    except FolderInUse as error:
        raise CannotRestore(str(error)) from None
    try:
        if found := sorted(name for name in _OF_PORTAL if (folder / name).exists()):
            raise CannotRestore(
                f"There is a portal in {folder} already ({', '.join(found)}), and nothing of it is overwritten. Name "
                "an empty folder with --data-dir."
            )
        for left in folder.glob(f"{_PREFIX}*"):  # of a restore that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder) as name:
            yield Path(name)
    finally:
        lock.release()


def unpack_into(staging: Path, stream: io.BufferedReader, passphrase: str | None, config: Config) -> dict[str, Any]:
    """Unpack a backup that this program can restore. Returns its summary. Raises CannotRestore, Damaged, OSError."""
    summary = unpack(stream, passphrase, staging, lambda found: check(found, config))
    dump = DUMPS[summary["about"]["database"]]
    if not all((staging / "keys" / name).is_file() for name in _KEYS) or not (staging / "database" / dump).is_file():
        raise CannotRestore("The backup lacks its keys or its database.")
    if not isinstance(summary.get("gone", []), list):
        raise CannotRestore("The backup lacks what it should say of itself.")
    given = {
        "secret_key": config.secret_key,
        "encryption_keys": "\n".join(config.encryption_keys),
        "token_key": config.token_key,
    }
    for name, value in given.items():
        if value and value.strip() != (staging / "keys" / name).read_text(encoding="utf-8").strip():
            raise CannotRestore(
                f"AIRELAYS_{name.upper()} is set, and is not that of the backup. Take it out of the settings: the "
                "backup has its own."
            )
    if dump == DUMPS["sqlite"]:
        (staging / "database" / dump).rename(staging / dump)
    (staging / "uploads").mkdir(mode=0o700, exist_ok=True)
    return summary


def settings_for(staging: Path, config: Config) -> None:
    """Have the settings of this process name the unpacked data folder, and otherwise be what they are."""
    own = config.data_dir / ".env"
    if own.is_file():
        shutil.copyfile(own, staging / ".env")
    os.environ["AIRELAYS_DATA_DIR"] = str(staging)
    if config.database_url:
        os.environ["AIRELAYS_DATABASE_URL"] = config.database_url


@dataclass(frozen=True, slots=True)
class Restored:
    """What was found after everything was restored."""

    files: int
    bytes: int  # of files
    migrated: bool  # the backup is of an older version
    entries: int  # of the ledger
    differences: tuple[str, ...]  # of the ledger, and between files and their rows


def load(staging: Path, summary: dict[str, Any]) -> Restored:
    """Load the database, bring it up to date, and verify ledger and files. Needs Django.

    Raises CannotRestore, ProgramFailed, DatabaseError.
    """
    from django.core.management import call_command
    from django.db import connection

    from portal.services.migrations import migrations_missing
    from relay.billing.ledger.verify import verify
    from relay.models import Upload
    from relay.models.upload import UploadState
    from relay.storage.files_check import verify_files

    _load_dump(staging)
    migrated = migrations_missing()
    if migrated:
        call_command("migrate", interactive=False, verbosity=0)
    # What was being received or deleted is in no backup, and whoever did it is gone.
    Upload.objects.filter(state__in=(UploadState.RECEIVING, UploadState.DELETING)).delete()
    gone = [str(name) for name in summary.get("gone", ())]
    for start in range(0, len(gone), 500):
        Upload.objects.filter(storage_name__in=gone[start : start + 500]).delete()
    books = verify()
    found, files, size = verify_files()
    connection.close()
    differences = (*(str(one) for one in books.differences), *(f"{one.name}: {one.what}" for one in found))
    return Restored(files, size, migrated, books.entries, differences)


def _load_dump(staging: Path) -> None:
    from django.db import connection

    from portal.backup import programs

    folder = staging / "database"
    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA quick_check(1)")
            if cursor.fetchone()[0] != "ok":
                raise CannotRestore("The database in the backup is damaged.")
        return
    with connection.cursor() as cursor:
        if connection.introspection.table_names(cursor, include_views=True):
            raise CannotRestore(
                "The database that AIRELAYS_DATABASE_URL names is not empty, and nothing in it is overwritten."
            )
    if connection.vendor == "postgresql":
        programs.load_postgresql(connection, folder / DUMPS["postgresql"])
    else:
        programs.load_mysql(connection, folder / DUMPS["mysql"])


def put_in_place(staging: Path, folder: Path) -> Path | None:
    """Move everything into the data folder, the database last. Returns the folder of the backup's settings, if any."""
    placed = folder / _SETTINGS
    if (staging / "settings").is_dir():
        shutil.rmtree(placed, ignore_errors=True)
        (staging / "settings").rename(placed)
    for name in ("uploads", "keys", "state.sqlite3-wal", "state.sqlite3"):
        if (staging / name).exists():
            (staging / name).rename(folder / name)
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    return placed if placed.is_dir() else None
