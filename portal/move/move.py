"""Moves an installation into another database.

The first run may be made while the portal serves: it copies what one transaction sees, and lets everybody write on. A
second one, with the portal stopped, copies what has changed since, checks all of it, and ends the move. One that is
interrupted is gone on with by running it again. The old database is only read.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from socket import gethostname
from typing import Final

from django.conf import settings
from django.core.management import call_command
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader

from accounts.transactions import consistent_read, patient_read
from portal.installation.lock import FolderInUse, FolderLock
from portal.lib import clock, crypto
from portal.lib.processes import process_start
from portal.move import comparison, references
from portal.move.copy import Copier, Tell
from portal.move.progress import Progress, holds_portal, is_empty, is_unfinished
from portal.move.rows import RowRefused
from portal.move.tables import all_tables
from portal.services.database_errors import fault_of
from portal.services.other_database import as_default
from relay.models import Worker

_SEEN: Final = timedelta(seconds=90)  # a worker writes its row every half minute


class MoveRefused(Exception):
    """The move cannot be made, or go on. The message is one or two sentences."""


@dataclass(slots=True)
class Moved:
    """What a run has done."""

    finished: bool  # everything that the portal has answered is there
    at: datetime  # the state of the old database that was copied
    copied: int  # rows
    rows: int  # of the whole copy
    replaced: int  # rows with characters that could not be stored
    money: dict[str, int] = field(default_factory=dict)  # sums on both sides, in nano-USD, by table and column


def move(target: BaseDatabaseWrapper, name: str, tell: Tell) -> Moved:
    """Copy the portal's database into another one, and finish if nobody serves from it meanwhile.

    `name`: of the target, for messages. Raises MoveRefused, DatabaseError.
    """
    source = connections[DEFAULT_DB_ALIAS]
    with _nobody_serving() as is_stopped:
        try:
            with patient_read():
                at, before = clock.now(), comparison.mark(source)
                with as_default(target):
                    done = _copy(source, target, name, tell, is_stopped)
                    money = comparison.sums_of_money(target)
            with consistent_read():
                is_last = is_stopped and comparison.mark(source) == before
            if is_last:
                Progress(target).end()
        except RowRefused as error:
            raise MoveRefused(str(error)) from error
        except references.DanglingReference as error:
            raise MoveRefused(str(error)) from error
        finally:
            target.close()
    return Moved(is_last, at, done.copied, done.rows, done.replaced, money)


@dataclass(frozen=True, slots=True)
class _Done:
    copied: int
    rows: int
    replaced: int


def _copy(source: BaseDatabaseWrapper, target: BaseDatabaseWrapper, name: str, tell: Tell, is_stopped: bool) -> _Done:
    progress, tables = Progress(target), all_tables()
    _begin(target, name, progress)
    references.suspend(target, progress)
    copier = Copier(source, target, tell)
    for table in tables:
        copier.copy(table)
        if table.counts:
            references.set_last_number(target, table, references.last_number(source, table))
    tell("", 0)
    if is_stopped:
        references.restore(target, progress)
    if different := comparison.differences(source, target, tables):
        more = f" ({len(different)} differences)" if len(different) > 1 else ""
        raise MoveRefused(f"The copy is not what it should be{more}: {different[0]}")
    rows = sum(comparison.rows_by_table(target, tables).values())
    return _Done(copier.done.rows, rows, copier.done.replaced)


def _begin(target: BaseDatabaseWrapper, name: str, progress: Progress) -> None:
    """Make the tables in an empty database, or make sure that an unfinished copy is one of this installation."""
    facts = _facts()
    if is_unfinished(target):
        if progress.is_bare() and progress.fact("installation") in {"", facts["installation"]}:
            progress.begin(facts)  # a run that ended at its very beginning has not noted all of them
        if progress.fact("installation") != facts["installation"]:
            raise MoveRefused(
                f"{_first_upper(name)} is the unfinished copy of another installation. Name an empty database."
            )
        if progress.fact("migrations") != facts["migrations"]:
            raise MoveRefused(
                f"{_first_upper(name)} is an unfinished copy that another version of the portal has begun. Empty it, "
                "and run this again."
            )
        progress.make_windows()
    elif not is_empty(target):
        step = "Put that file aside." if target.vendor == "sqlite" else "Name an empty database."
        if holds_portal(target):
            use = "take AIRELAYS_DATABASE_URL out" if target.vendor == "sqlite" else "set AIRELAYS_DATABASE_URL to it"
            step = f"It holds a portal: if a move has finished there, {use}. {step}"
        raise MoveRefused(f"{_first_upper(name)} is not empty, and nothing in it is overwritten. {step}")
    else:
        progress.begin(facts)
    if target.vendor == "sqlite":
        crypto.close_database(sqlite_file())
    if not progress.fact("migrated"):
        if not target.features.can_rollback_ddl:  # of MySQL: half of a migration may be there
            progress.drop_tables()
        call_command("migrate", interactive=False, verbosity=0)
        progress.note("migrated", "yes")


def _facts() -> dict[str, str]:
    """What is noted of an unfinished copy: whose it is, and by which version."""
    leaves = sorted(MigrationLoader(None).graph.leaf_nodes())
    return {
        "installation": crypto.keyed_digest(settings.TOKEN_KEY, b"move"),
        "migrations": " ".join(f"{app}.{last}" for app, last in leaves),
    }


def _first_upper(name: str) -> str:
    return name[:1].upper() + name[1:]


@contextmanager
def _nobody_serving() -> Iterator[bool]:
    """Whether no portal serves from the old database; inside, none on this data folder can begin to.

    Raises MoveRefused while another move runs.
    """
    moving = _only_move(settings.DATA_DIR)
    lock = FolderLock(settings.DATA_DIR)
    try:
        try:
            locked = lock.hold(patience=0)
        except FolderInUse:
            yield False
            return
        alone = locked and not settings.CONFIG.shared_data_dir and not settings.CONFIG.database_url
        yield alone or not _workers()
    finally:
        lock.release()
        os.close(moving)


def _only_move(folder: Path) -> int:
    """Take the lock of moves, of which one runs at a time. Returns its descriptor."""
    file = crypto.open_private(folder / "move.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise MoveRefused("Another move of this installation is running.") from None
    except OSError:  # a file system without locks
        pass
    return file


def _workers() -> bool:
    """Whether a worker was there a moment ago, and has not ended as far as that can be told from here."""
    here = gethostname()[:120]
    return any(
        worker.host != here or process_start(worker.pid)
        for worker in Worker.objects.filter(seen_at__gte=clock.now() - _SEEN)
    )


def connects(target: BaseDatabaseWrapper) -> str:
    """Why a database cannot be connected to, and what to do; empty if it can."""
    try:
        target.ensure_connection()
    except DatabaseError as error:
        fault = fault_of(error, target.vendor)
        return f"{fault.reason}. {fault.remedy.replace('AIRELAYS_DATABASE_URL', 'the URL')}"
    return ""


def sqlite_file() -> Path:
    """The file of a portal on SQLite."""
    return Path(settings.DATA_DIR) / "state.sqlite3"
