"""Makes a backup of a portal while it serves: database, keys, settings and stored files, as they belong together.

The database is read in one transaction. Files are copied after it, by its rows; a file never changes once it is stored.
One that was deleted meanwhile is named in the summary, so that a restore forgets its row, too.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from django.conf import settings
from django.db import connection
from django.db.models import QuerySet

from accounts.transactions import patient_read
from portal.backup import programs
from portal.backup.about import DUMPS, about
from portal.backup.age import Unreadable
from portal.backup.archive import ArchiveWriter, Damaged, unpack, writing
from portal.lib import crypto
from portal.services.other_database import as_default, connect_sqlite
from relay.billing.ledger.verify import verify
from relay.models import Upload
from relay.models.upload import UploadState
from relay.storage.files import path_of

_PREFIX: Final = ".airelays-backup-"
_STALE: Final = 60.0  # seconds after which a folder without a lock is of a process that was killed
_PAGES: Final = 4096  # of SQLite, between looks at Ctrl-C
_ROWS: Final = 500
Tell = Callable[[str], None]


class BackupFailed(Exception):
    """No backup was made. The message is one or two sentences."""


class Stored(NamedTuple):
    """A stored file, as its row has it."""

    pk: int
    name: str
    sha256: str
    size: int


@dataclass(slots=True)
class Backup:
    """What is in a backup, and what was found wrong with the portal on the way."""

    members: int = 0
    bytes: int = 0  # before they were compressed
    files: int = 0  # of users
    gone: list[str] = field(default_factory=list)  # files that were deleted while it was made
    damaged: list[str] = field(default_factory=list)  # files that are not what was stored
    differences: int = 0  # in the ledger

    @property
    def is_sound(self) -> bool:
        return not self.damaged and not self.differences


def backup_to_file(path: Path, passphrase: str | None, tell: Tell) -> Backup:
    """Write a backup to a new file, which only its owner may read, and check it by reading it again.

    It gets its name when it is whole. Raises BackupFailed, OSError, DatabaseError.
    """
    if path.is_dir():
        raise BackupFailed(f"{path} is a folder: name the file that is to be written in it.")
    if not path.parent.is_dir():
        raise BackupFailed(f"There is no folder {path.parent}.")
    if path.exists():
        raise BackupFailed(f"{path} exists already. Name a file that does not.")
    with _scratch(path.parent) as folder:
        made = folder / "backup"
        with open(made, "xb", opener=crypto.open_private) as file:  # Path.open takes no opener
            done = backup_to_stream(file, passphrase, tell)
            file.flush()
            os.fsync(file.fileno())
        tell("Checking the backup …")
        with made.open("rb") as file:
            try:
                unpack(file, passphrase, None)
            except (Damaged, Unreadable) as error:
                raise BackupFailed(f"What was written cannot be read again. {error}") from error
        _publish(made, path)
    return done


def _publish(made: Path, path: Path) -> None:
    """Give a file its name, unless another one has got it meanwhile."""
    try:
        os.link(made, path)
    except FileExistsError:
        raise BackupFailed(f"{path} exists already. Name a file that does not.") from None
    except OSError:  # a file system without links
        made.rename(path)
    with contextlib.suppress(OSError):
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def backup_to_stream(to: IO[bytes], passphrase: str | None, tell: Tell) -> Backup:
    """Write a backup to a stream. One that breaks off has no end, by which a restore knows it.

    The database is dumped into the data folder first, so that nothing unencrypted gets to the disk of the backup.
    Raises BackupFailed, OSError, DatabaseError.
    """
    with _scratch(settings.DATA_DIR) as folder:
        done = Backup()
        try:
            with writing(to, passphrase, folder) as archive:
                archive.add_text("about.json", json.dumps(about(connection.vendor), indent=1))
                _add_keys(archive)
                _add_settings(archive)
                missing = _add_content(archive, folder, done, tell)
                there = _still_there(missing)
                done.gone = [name for name in missing if name not in there]
                done.damaged += sorted(there)
                archive.add_text("summary.json", json.dumps(_summary(done), indent=1))
            done.members, done.bytes = archive.members, archive.bytes
        except (programs.ProgramFailed, Damaged) as error:
            raise BackupFailed(str(error)) from error
        except sqlite3.Error as error:
            raise BackupFailed(f"The database cannot be copied: {error}.") from error
        return done


def _summary(done: Backup) -> dict[str, Any]:
    return {
        "files": done.files,
        "gone": done.gone,
        "damaged": done.damaged,
        "ledger": "balanced" if not done.differences else f"{done.differences} differences",
    }


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    """A private folder for what is not whole yet, on the disk on which it is to be. Removes those of killed backups."""
    for left in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE and (handle := _lock(left)) is not None:
                os.close(handle)
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=place) as name:  # mode 0700
        handle = _lock(Path(name))
        try:
            yield Path(name)
        finally:
            if handle is not None:
                os.close(handle)


def _lock(folder: Path) -> int | None:
    """Take the lock of a folder, which the system gives up with the process. None: another has it, or there are none.

    Raises OSError when it is no folder.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


@contextmanager
def _database(folder: Path, done: Backup, tell: Tell) -> Iterator[tuple[Path, Iterator[Stored]]]:
    """Dump one state of the database and verify its ledger; inside, the dump, and the stored files as it has them."""
    dump = folder / DUMPS[connection.vendor]
    if connection.vendor == "sqlite":
        _copy_sqlite(dump)
        copy = connect_sqlite(dump)
        try:
            with as_default(copy):
                _check_sqlite(copy)
                tell("Verifying the ledger …")
                done.differences = len(verify().differences)
                rows = list(_in_pages())
        finally:
            copy.close()
        yield dump, iter(rows)
    elif connection.vendor == "postgresql":
        with patient_read():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_export_snapshot()")
                snapshot = cursor.fetchone()[0]
            programs.dump_postgresql(connection, snapshot, dump)
            tell("Verifying the ledger …")
            done.differences = len(verify().differences)
            yield dump, _in_pages()
    else:  # a dump has a transaction of its own: what was stored before it, and what after it
        before = {stored.pk: stored for stored in _in_pages()}
        connection.close()  # the server would end it meanwhile, after its `wait_timeout`
        programs.dump_mysql(connection, dump)
        tell("Verifying the ledger …")
        done.differences = len(verify().differences)
        after = {stored.pk: stored for stored in _in_pages()}
        yield dump, iter((before | after).values())


def _copy_sqlite(to: Path) -> None:
    """Copy the file as one transaction sees it, while others write."""
    handle = os.open(to, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    os.close(handle)
    uri = f"{Path(connection.settings_dict['NAME']).resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as source, closing(sqlite3.connect(to)) as copy:
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM django_migrations").fetchone()  # from here on it sees this state
        source.backup(copy, pages=_PAGES, progress=lambda *_pages: None, sleep=0)
        source.execute("ROLLBACK")
        copy.execute("PRAGMA journal_mode=DELETE")


def _check_sqlite(copy: Any) -> None:
    with copy.cursor() as cursor:
        cursor.execute("PRAGMA quick_check(1)")
        if (found := cursor.fetchone()[0]) != "ok":
            raise Damaged(f"The database file is damaged: {str(found)[:100]}. Run `airelays doctor`.")


def _files() -> QuerySet[Upload]:
    return Upload.objects.filter(state__in=(UploadState.STORED, UploadState.PART))


def _in_pages() -> Iterator[Stored]:
    last, rows = 0, _files().order_by("pk").values_list("pk", "storage_name", "sha256", "size")
    while page := list(rows.filter(pk__gt=last)[:_ROWS]):
        yield from map(Stored._make, page)
        last = page[-1][0]


def _still_there(names: list[str]) -> set[str]:
    """Those of some files that have a row now. However many are missing, a query asks for some of them."""
    found: set[str] = set()
    for start in range(0, len(names), _ROWS):
        some = _files().filter(storage_name__in=names[start : start + _ROWS])
        found.update(some.values_list("storage_name", flat=True))
    return found


def _add_content(archive: ArchiveWriter, folder: Path, done: Backup, tell: Tell) -> list[str]:
    """Add the database, and the files that it has. Returns the names of those that are not on the disk."""
    missing = []
    tell("Copying the database …")
    with _database(folder, done, tell) as (dump, rows):
        with dump.open("rb") as file:
            archive.add(f"database/{dump.name}", file, dump.stat().st_size)
        dump.unlink()
        for stored in rows:
            if not _add_file(archive, stored, done):
                missing.append(stored.name)
            elif done.files % 100 == 0:
                tell(f"Copying files: {done.files:,} …")
    return missing


def _add_keys(archive: ArchiveWriter) -> None:
    archive.add_text("keys/secret_key", f"{settings.SECRET_KEY}\n")
    archive.add_text("keys/encryption_keys", "".join(f"{key}\n" for key in settings.ENCRYPTION_KEYS))
    archive.add_text("keys/token_key", f"{settings.TOKEN_KEY.decode()}\n")


def _add_settings(archive: ArchiveWriter) -> None:
    """The files that settings were read from, each under a name of its own: a restore refuses one that comes twice."""
    left = ["data.env", "config.toml", "working.env", "other.env"]
    for path in settings.CONFIG.files:
        name = "config.toml" if path.suffix == ".toml" else "working.env"
        if path == settings.DATA_DIR / ".env":
            name = "data.env"
        if name not in left:
            name = left[-1]
        left.remove(name)
        with contextlib.suppress(FileNotFoundError):
            archive.add_text(f"settings/{name}", path.read_text(encoding="utf-8"))


def _add_file(archive: ArchiveWriter, stored: Stored, done: Backup) -> bool:
    """Add a stored file. Returns False when it is not on the disk."""
    name = stored.name
    try:
        file = path_of(name).open("rb")
    except FileNotFoundError:
        return False
    with file:
        size = os.fstat(file.fileno()).st_size
        digest = archive.add(f"uploads/{name[:2]}/{name}", file, size)
    done.files += 1
    if digest != stored.sha256 or size != stored.size:
        done.damaged.append(name)
    return True
