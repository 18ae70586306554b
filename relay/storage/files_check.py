"""Compares the files on disk with their rows, repairs differences, and deletes files that have expired."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from django.db.models import Q, QuerySet

from portal.lib import clock
from portal.lib.processes import is_dead
from relay.models import Upload, UploadSession
from relay.models.upload import UploadState
from relay.storage import uploads
from relay.storage.files import STALE_AFTER, folder, path_of, remove

logger: Final = logging.getLogger(__name__)
_PAGE_ROWS: Final = 1000
_SWEEP_ROWS: Final = 500
_swept = 0  # the key of the last row of a sweep


def sweep() -> int:
    """Delete files that have expired or were left unfinished by a worker that is gone, and end expired uploads.

    Returns the number of deleted files. One that the disk does not delete keeps no other from being deleted.
    """
    now = clock.now()
    deleted = 0
    for upload in _due(now):
        if upload.state == UploadState.RECEIVING and not (
            is_dead(upload.owner) or upload.created_at < now - STALE_AFTER
        ):
            continue
        deleted += remove(upload)
    uploads.expire_sessions(now)
    return deleted


def _due(now: datetime) -> list[Upload]:
    """The rows that a sweep looks at: those behind the last one of the sweep before, then from the first."""
    global _swept
    due = Upload.objects.filter(
        Q(state=UploadState.DELETING)
        | Q(state=UploadState.RECEIVING)
        | Q(expires_at__lte=now)
        | (Q(state=UploadState.PART, session__isnull=False) & ~Q(session__status=UploadSession.Status.PENDING))
    ).order_by("pk")
    found = list(due.filter(pk__gt=_swept)[:_SWEEP_ROWS])
    if len(found) < _SWEEP_ROWS:
        found += due.filter(pk__lte=_swept)[: _SWEEP_ROWS - len(found)]
    _swept = found[-1].pk if found else 0
    return found


@dataclass(frozen=True, slots=True)
class FileFinding:
    """A difference between the files on disk and their rows."""

    what: str  # in words
    name: str  # of the file on disk


def verify_files(contents: bool = False) -> tuple[list[FileFinding], int, int]:
    """Compare disk and rows. Returns the differences, the number of files and their bytes.

    `contents`: read every file and compare its SHA-256, too.
    """
    found: list[FileFinding] = []
    names: set[str] = set()
    count = size = 0
    for upload in _in_pages(Upload.objects.all()):
        names.add(upload.storage_name)
        if upload.state not in {UploadState.STORED, UploadState.PART}:
            if upload.state == UploadState.RECEIVING and is_dead(upload.owner):
                found.append(FileFinding("half received by a worker that is gone", upload.storage_name))
            continue
        path = path_of(upload.storage_name)
        count, size = count + 1, size + upload.size
        if not path.is_file():
            found.append(FileFinding("recorded, but not on the disk", upload.storage_name))
        elif path.stat().st_size != upload.size:
            found.append(
                FileFinding(f"{path.stat().st_size} bytes on the disk, {upload.size} recorded", upload.storage_name)
            )
        elif contents and _sha256(path) != upload.sha256:
            found.append(FileFinding("its content is not what was stored", upload.storage_name))
    found += [
        FileFinding("on the disk, but not recorded", path.name)
        for path in _on_disk()
        if path.name not in names and not Upload.objects.filter(storage_name=path.name).exists()
    ]
    return found, count, size


def _in_pages(rows: QuerySet[Upload]) -> Iterator[Upload]:
    """Rows by their keys, so many at a time: no query is open while files are read, and rows deleted."""
    last = 0
    while page := list(rows.filter(pk__gt=last).order_by("pk")[:_PAGE_ROWS]):
        yield from page
        last = page[-1].pk


def _on_disk() -> list[Path]:
    return [path for path in folder().glob("*/*") if path.is_file()] if folder().is_dir() else []


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def repair() -> int:
    """Delete files without a row and rows without their file, after a `sweep`. Returns how many were deleted."""
    deleted = sweep()
    for path in _on_disk():
        if not Upload.objects.filter(storage_name=path.name).exists():
            deleted += _deleted(path)
    for upload in _in_pages(Upload.objects.filter(state__in=(UploadState.STORED, UploadState.PART))):
        path = path_of(upload.storage_name)
        if not path.is_file() or path.stat().st_size != upload.size:
            deleted += remove(upload)
    return deleted


def _deleted(path: Path) -> bool:
    """Delete a file without a row. Returns False when the disk does not."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.error("the file %s cannot be deleted from the disk: %s", path.name, error)
        return False
    return True
