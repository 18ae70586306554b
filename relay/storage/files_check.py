"""Whether the files on disk are those in the database: sweeping what is left over, comparing, repairing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from django.db.models import Q

from portal.lib import clock
from portal.lib.processes import is_dead
from relay.models import Upload, UploadSession
from relay.models.upload import UploadState
from relay.storage.files import _STALE, drop_parts, folder, path_of, remove


def sweep() -> int:
    """End what was left half done, and delete what has expired. Returns how many files went."""
    now = clock.now()
    gone = 0
    for upload in Upload.objects.filter(Q(state=UploadState.DELETING) | Q(state=UploadState.RECEIVING) | Q(expires_at__lte=now)).order_by("pk")[:500]:
        if upload.state == UploadState.RECEIVING and not (is_dead(upload.owner) or upload.created_at < now - _STALE):
            continue
        remove(upload)
        gone += 1
    for session in UploadSession.objects.filter(status=UploadSession.Status.PENDING, expires_at__lte=now)[:100]:
        UploadSession.objects.filter(pk=session.pk, status=UploadSession.Status.PENDING).update(status=UploadSession.Status.EXPIRED)
        drop_parts(session)
    old = UploadSession.objects.filter(expires_at__lte=now - timedelta(days=30))
    UploadSession.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:500])).delete()
    return gone


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference between disk and records."""

    what: str
    name: str


def verify(contents: bool = False) -> tuple[list[Finding], int, int]:
    """Differences, files and bytes. `contents`: read every file and compare its SHA-256, too."""
    found: list[Finding] = []
    names: set[str] = set()
    count = size = 0
    for upload in Upload.objects.order_by("pk").iterator():
        names.add(upload.storage_name)
        if upload.state not in {UploadState.STORED, UploadState.PART}:
            if upload.state == UploadState.RECEIVING and is_dead(upload.owner):
                found.append(Finding("half received by a worker that is gone", upload.storage_name))
            continue
        path = path_of(upload.storage_name)
        count, size = count + 1, size + upload.size
        if not path.is_file():
            found.append(Finding("recorded, but not on the disk", upload.storage_name))
        elif path.stat().st_size != upload.size:
            found.append(Finding(f"{path.stat().st_size} bytes on the disk, {upload.size} recorded", upload.storage_name))
        elif contents and _sha256(path) != upload.sha256:
            found.append(Finding("its content is not what was stored", upload.storage_name))
    found += [Finding("on the disk, but not recorded", path.name) for path in _on_disk() if path.name not in names and not Upload.objects.filter(storage_name=path.name).exists()]
    return found, count, size


def _on_disk() -> list[Path]:
    return [path for path in folder().glob("*/*") if path.is_file()] if folder().is_dir() else []


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def repair() -> int:
    """Delete files without a row and rows without a file. Returns how many."""
    gone = sweep()
    for path in _on_disk():
        if not Upload.objects.filter(storage_name=path.name).exists():
            path.unlink(missing_ok=True)
            gone += 1
    for upload in Upload.objects.filter(state__in=(UploadState.STORED, UploadState.PART)).iterator():
        path = path_of(upload.storage_name)
        if not path.is_file() or path.stat().st_size != upload.size:
            remove(upload)
            gone += 1
    return gone
