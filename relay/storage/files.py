"""Stored files: the bytes in the data folder, their rows in the database, and the caps on both. Synchronous: called in threads.

A row is written before the bytes and changed to `stored` when they lie, synced, at their place; it is marked `deleting` before they go. So no
file is ever without a row, and what a crash leaves is told by its row: `sweep` ends it. `size` of a row that is being received is what is
held free for it, so uploads that run at once cannot exceed a cap together.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Final

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q, Sum

from portal.lib import clock
from portal.lib.ids import time_ordered_hex
from relay.errors import RequestTooLarge, StorageFull
from relay.models import Lease, Upload, UploadSession
from relay.models.upload import UploadState

logger: Final = logging.getLogger(__name__)
_LOCK: Final = "uploads"
_STALE: Final = timedelta(hours=2)  # a row of another host that is still being received after so long has no worker any more
_COUNTED: Final = (UploadState.RECEIVING, UploadState.PART, UploadState.STORED)
_BLOCK: Final = 1 << 20
MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class StorageRoom:
    """What may be stored. Bytes."""

    one: int
    everyone: int
    user: int


def room() -> StorageRoom:
    config = settings.CONFIG
    return StorageRoom(config.max_upload_bytes, config.max_total_upload_bytes, config.max_user_upload_bytes)


def folder() -> Path:
    return Path(settings.DATA_DIR) / "uploads"


def path_of(storage_name: str) -> Path:
    return folder() / storage_name[:2] / storage_name


def partial_path(storage_name: str) -> Path:
    return folder() / "tmp" / storage_name


def clean_name(name: str) -> str:
    """A file name without control characters, which no header can carry, of at most 255 characters."""
    return "".join(character for character in name if character.isprintable()).strip()[:255] or "file"


# -- caps ------------------------------------------------------------------------------------------------------------


@contextmanager
def _alone() -> Iterator[None]:
    """Inside: a transaction in which nobody else counts or adds bytes."""
    with transaction.atomic():
        if connection.vendor != "sqlite":  # whose transactions exclude each other as they are
            Lease.objects.get_or_create(name=_LOCK, defaults={"owner": "", "until": clock.now()})
            Lease.objects.select_for_update().get(name=_LOCK)
        yield


def used(user_id: int | None = None) -> int:
    """Bytes that count, of one user or of all."""
    rows = Upload.objects.filter(state__in=_COUNTED)
    if user_id is not None:
        rows = rows.filter(user=user_id)
    return int(rows.aggregate(sum=Sum("size"))["sum"] or 0)


def show_bytes(count: int) -> str:
    return f"{count / MIB:.1f} MiB" if count >= MIB / 10 else f"{count:,} bytes"


def _check(user_id: int, more: int) -> None:
    """Raises RequestTooLarge when so many more bytes do not fit."""
    limits = room()
    free = limits.user - used(user_id)
    if more > free:
        message = (
            f"Your files may take up {show_bytes(limits.user)} together, and {show_bytes(max(0, free))} of it are free. Delete files you do not need any more, then try again."
        )
        raise RequestTooLarge(message, code="storage_quota_exceeded")
    free = limits.everyone - used()
    if more > free:
        message = f"The portal's storage for files is full: {show_bytes(max(0, free))} of {show_bytes(limits.everyone)} are free. Delete files, or ask the portal's administrator."
        raise RequestTooLarge(message, code="storage_quota_exceeded")


def check_one(size: int) -> None:
    """Raises RequestTooLarge when a file is larger than any may be."""
    most = room().one
    if size > most:
        raise RequestTooLarge(f"The file is larger than the {show_bytes(most)} that this portal stores. Split it, or ask the portal's administrator.", code="file_too_large")


def begin(user_id: int, held: int, owner: str, session: UploadSession | None = None, name: str = "") -> Upload:
    """Hold so many bytes free for a file that is about to arrive. `name`: of the file, after `file-`. Raises RequestTooLarge."""
    name = name or time_ordered_hex()
    with _alone():
        _check(user_id, held)
        return Upload.objects.create(
            file_id=f"file-{name}", user_id=user_id, filename="", purpose="", content_type="", size=held, sha256="", storage_name=name, state=UploadState.RECEIVING, owner=owner,
            session=session,
        )  # fmt: skip


def grow(upload: Upload, held: int) -> None:
    """Hold more free for a file whose length is not known beforehand. Raises RequestTooLarge."""
    with _alone():
        _check(upload.user_id, held - upload.size)
        Upload.objects.filter(pk=upload.pk).update(size=held)
    upload.size = held


# -- receiving -------------------------------------------------------------------------------------------------------


class Sink:
    """Takes a file's bytes. `close` always; `keep` when all of them have come."""

    def __init__(self, upload: Upload) -> None:
        """Raises StorageFull."""
        self.upload = upload
        self.size = 0
        self._digest = hashlib.sha256()
        self._path = partial_path(upload.storage_name)
        self._file: IO[bytes] | None = None
        with _disk():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("xb")

    def write(self, data: bytes) -> None:
        """Raises StorageFull."""
        assert self._file is not None  # noqa: S101  # open until it is closed
        with _disk():
            self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def settle(self) -> None:
        """Put the file at its place. Raises StorageFull."""
        if self._file is None:
            return
        with _disk():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
            place(self._path, path_of(self.upload.storage_name))

    def keep(self, state: str, filename: str, purpose: str, content_type: str, expires_at: datetime | None = None) -> Upload:
        """Put the file at its place, then say so in its row. Raises StorageFull."""
        self.settle()
        upload = self.upload
        upload.filename, upload.purpose, upload.content_type = clean_name(filename), purpose, content_type[:120]
        upload.size, upload.sha256, upload.state, upload.owner, upload.expires_at = self.size, self._digest.hexdigest(), state, "", expires_at
        upload.save(force_update=True)
        return upload

    def close(self) -> None:
        """Give up what has not been kept."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self.upload.state == UploadState.RECEIVING:
            remove(self.upload)


def place(source: Path, target: Path) -> None:
    """Move a synced file, so that it is there whole or not at all, also after a power cut."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
    for directory in {target.parent, source.parent}:
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        logger.error("a file cannot be stored: %s", error)
        raise StorageFull("The portal's disk cannot take the file: it is full or cannot be written. Tell the portal's administrator; nothing was stored.") from error


# -- reading and deleting --------------------------------------------------------------------------------------------


def stored(user_id: int) -> Q:
    """Which rows are this user's files."""
    return Q(user=user_id, state=UploadState.STORED) & (Q(expires_at=None) | Q(expires_at__gt=clock.now()))


def find(user_id: int, file_id: str) -> Upload | None:
    return Upload.objects.filter(stored(user_id), file_id=file_id).first()


def find_all(user_id: int, file_ids: Sequence[str]) -> dict[str, Upload]:
    return {upload.file_id: upload for upload in Upload.objects.filter(stored(user_id), file_id__in=set(file_ids))}


def remove(upload: Upload) -> None:
    """Delete a file: first it is nobody's, then its bytes go, then its row."""
    Upload.objects.filter(pk=upload.pk).update(state=UploadState.DELETING)
    upload.state = UploadState.DELETING
    unlink(upload.storage_name)
    Upload.objects.filter(pk=upload.pk).delete()


def unlink(storage_name: str) -> None:
    """Take the bytes of a file from the disk, wherever they are."""
    for path in (partial_path(storage_name), path_of(storage_name)):
        path.unlink(missing_ok=True)


# -- parts -----------------------------------------------------------------------------------------------------------


def join(session: UploadSession, parts: Sequence[Upload], md5: str, owner: str) -> Upload | str:
    """Make one file of the parts; or what is wrong with them. Raises StorageFull."""
    upload = Upload.objects.create(
        file_id=f"file-{(name := time_ordered_hex())}", user_id=session.user_id, filename="", purpose="", content_type="", size=0, sha256="", storage_name=name,
        state=UploadState.RECEIVING, owner=owner,
    )  # fmt: skip
    sink = Sink(upload)
    try:
        check = hashlib.md5(usedforsecurity=False)
        for part in parts:
            with path_of(part.storage_name).open("rb") as source:
                while block := source.read(_BLOCK):
                    sink.write(block)
                    check.update(block)
        if sink.size != session.size:
            return f"The parts have {sink.size:,} bytes together, {session.size:,} were announced. Send what is missing, or begin anew."
        if md5 and check.hexdigest() != md5.lower():
            return "The parts have another MD5 than the one given. Send them again."
        expires = clock.now() + timedelta(seconds=session.keep_seconds) if session.keep_seconds else None
        sink.settle()
        with transaction.atomic():
            claimed = UploadSession.objects.filter(pk=session.pk, status=UploadSession.Status.PENDING).update(status=UploadSession.Status.COMPLETED, file_id=upload.file_id)
            if not claimed:
                return "The upload is not pending any more."
            session.parts.update(state=UploadState.DELETING)  # they stop counting in the moment in which the whole begins to
            return sink.keep(UploadState.STORED, session.filename, session.purpose, session.content_type, expires)
    finally:
        sink.close()


def drop_parts(session: UploadSession) -> None:
    for part in Upload.objects.filter(session=session).exclude(state=UploadState.RECEIVING):
        remove(part)


# -- looking after ---------------------------------------------------------------------------------------------------
