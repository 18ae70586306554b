"""Stores uploaded files: their bytes in the data folder, their rows in the database, and the limits on both.

A row is written before the bytes, becomes `stored` when the file is synced and in its place, and becomes `deleting`
before the file is deleted. So no file is ever without a row, and the row of a file that a crash left unfinished tells
`relay.storage.files_check.sweep` what to do. While a file is being received, `size` of its row is the space reserved
for it, so that concurrent uploads cannot exceed a limit together. Synchronous: called in threads.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Final

from django.conf import settings
from django.db.models import Q, Sum

from accounts.models import User
from portal.lib import clock, crypto
from portal.lib.ids import time_ordered_hex
from portal.services.timeouts import on_disk
from relay.errors import RequestTooLarge, StorageFull
from relay.models import Upload, UploadSession
from relay.models.upload import UploadPurpose, UploadState
from relay.storage.room import COUNTED_STATES, no_room, room_left, room_lock, show_bytes

logger: Final = logging.getLogger(__name__)
STALE_AFTER: Final = timedelta(hours=2)  # a file of another host that is still being received has lost its worker
MIB: Final = 1 << 20
USER_SHARE: Final = 4  # of the room for all files, one of several users has this part unless it is configured
FORMER_ID: Final = "file_"  # begins the ids of files of AIRelays 0.x; those of the portal begin with `file-`
_TOTAL_OF_ONE: Final = 256 * MIB  # for files, unless it is configured: while one person has an account
_TOTAL_OF_SEVERAL: Final = 1024 * MIB


@dataclass(frozen=True, slots=True)
class StorageLimits:
    """How much may be stored, in bytes."""

    file: int  # one file
    total: int  # the files of all users together
    user: int  # the files of one user together


def storage_limits() -> StorageLimits:
    """Return the limits that hold. Reads the database where settings leave them to the number of accounts."""
    config = settings.CONFIG
    alone = True
    if not (config.max_total_upload_bytes and config.max_user_upload_bytes):
        alone = len(User.objects.order_by().values("pk")[:2]) < 2
    total = config.max_total_upload_bytes or (_TOTAL_OF_ONE if alone else _TOTAL_OF_SEVERAL)
    own = config.max_user_upload_bytes or (total if alone else total // USER_SHARE)
    return StorageLimits(config.max_upload_bytes, total, own)


def folder() -> Path:
    """Return the folder that holds the files."""
    return Path(settings.DATA_DIR) / "uploads"


def path_of(storage_name: str) -> Path:
    """Return the path of a stored file."""
    return folder() / storage_name[:2] / storage_name


def partial_path(storage_name: str) -> Path:
    """Return the path of a file while it is being received."""
    return folder() / "tmp" / storage_name


def clean_name(name: str) -> str:
    """Return a file name without control characters, which headers cannot carry, cut to 255 characters."""
    return "".join(character for character in name if character.isprintable()).strip()[:255] or "file"


# -- limits ----------------------------------------------------------------------------------------------------------


def used_bytes(user_id: int | None = None) -> int:
    """Return the bytes that count towards the limits, of one user or of all."""
    rows = Upload.objects.filter(state__in=COUNTED_STATES)
    if user_id is not None:
        rows = rows.filter(user=user_id)
    return int(rows.aggregate(sum=Sum("size"))["sum"] or 0)


@dataclass(frozen=True, slots=True)
class FreeRoom:
    """The bytes that are free for the files of one user, by each limit; negative where there are too many."""

    own: int  # of the user's files
    common: int  # of the files of all users
    stored: int  # of everything that is stored for the user

    @property
    def least(self) -> int:
        return min(self.own, self.common, self.stored)


def free_room(user_id: int) -> FreeRoom:
    limits = storage_limits()
    return FreeRoom(limits.user - used_bytes(user_id), limits.total - used_bytes(), room_left(user_id))


def _free_for(user_id: int, more: int, replaces: int = 0) -> int:
    """Return the bytes that are free, which are at least `more`; of those, `replaces` are stored already.

    Raises RequestTooLarge.
    """
    limits, free = storage_limits(), free_room(user_id)
    if more > free.own:
        message = (
            f"Your files may take up {show_bytes(limits.user)} together, and {show_bytes(max(0, free.own))} of it are "
            "free. Delete files you do not need any more, then try again."
        )
        raise RequestTooLarge(message, code="storage_quota_exceeded")
    if more > free.common:
        message = (
            f"The portal's storage for files is full: {show_bytes(max(0, free.common))} of {show_bytes(limits.total)} "
            "are free. Delete files, or ask the portal's administrator."
        )
        raise RequestTooLarge(message, code="storage_quota_exceeded")
    if more - replaces > free.stored:
        raise no_room(free.stored)
    return min(free.own, free.common, free.stored + replaces)


def check_file_size(size: int) -> None:
    """Check the size of one file against the limit. Raises RequestTooLarge."""
    most = settings.CONFIG.max_upload_bytes
    if size > most:
        raise RequestTooLarge(
            f"The file is larger than the {show_bytes(most)} that this portal stores. Split it, or ask the portal's "
            "administrator.",
            code="file_too_large",
        )


def reserve_upload(
    user_id: int,
    reserved: int,
    owner: str,
    session: UploadSession | None = None,
    name: str = "",
    replaces: int = 0,
) -> Upload:
    """Write the row of a file that is about to be received, reserving `reserved` bytes. Raises RequestTooLarge.

    `owner` is the worker that receives it, `session` the upload that it is a part of, `name` its id without the prefix
    `file-`, a new one when empty. `replaces`: bytes of what is stored for the user that go when the file is whole.
    """
    name = name or time_ordered_hex()
    with room_lock():
        _free_for(user_id, reserved, replaces)
        return Upload.objects.create(
            file_id=f"file-{name}",
            user_id=user_id,
            filename="",
            purpose="",
            content_type="",
            size=reserved,
            sha256="",
            storage_name=name,
            state=UploadState.RECEIVING,
            owner=owner,
            session=session,
        )


def grow(upload: Upload, needed: int, wanted: int, replaces: int = 0) -> None:
    """Reserve more space for a file whose length is not known: `wanted` bytes in all, or what is free of them.

    Raises RequestTooLarge if that is less than `needed`. `replaces`: bytes of what is stored for the user that go when
    the file is whole.
    """
    with room_lock():
        free = _free_for(upload.user_id, needed - upload.size, replaces)
        reserved = max(needed, min(wanted, upload.size + free))
        Upload.objects.filter(pk=upload.pk).update(size=reserved)
    upload.size = reserved


# -- receiving -------------------------------------------------------------------------------------------------------


class UploadWriter:
    """Writes the bytes of one file. Call `finish` when all have arrived, and `close` in every case."""

    def __init__(self, upload: Upload) -> None:
        """Raises StorageFull."""
        self.upload = upload
        self.size = 0  # bytes written so far
        self._digest = hashlib.sha256()
        self._path = partial_path(upload.storage_name)
        self._file: IO[bytes] | None = None
        with _disk_errors():
            make_folder(self._path.parent)
            self._file = open(self._path, "xb", opener=crypto.open_private)  # noqa: SIM115  # closed by `close`

    def write(self, data: bytes) -> None:
        """Raises StorageFull."""
        assert self._file is not None  # noqa: S101  # not closed yet
        with _disk_errors():
            self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def move_into_place(self) -> None:
        """Sync the file and move it to its final path. Raises StorageFull."""
        if self._file is None:
            return
        with _disk_errors():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
            move_durably(self._path, path_of(self.upload.storage_name))

    def finish(
        self, state: str, filename: str, purpose: str, content_type: str, expires_at: datetime | None = None
    ) -> Upload:
        """Move the file to its final path, then mark its row as `state`. Returns the row. Raises StorageFull."""
        self.move_into_place()
        upload = self.upload
        upload.filename, upload.purpose, upload.content_type = clean_name(filename), purpose, content_type[:120]
        upload.size, upload.sha256, upload.state, upload.owner, upload.expires_at = (
            self.size,
            self._digest.hexdigest(),
            state,
            "",
            expires_at,
        )
        upload.save(force_update=True)
        return upload

    def close(self) -> None:
        """Close the file; delete it with its row unless it was finished."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:  # it writes once more what the disk did not take, and is closed all the same
                logger.warning("the end of the file %s is not on the disk: %s", self.upload.storage_name, error)
        if self.upload.state == UploadState.RECEIVING:
            remove(self.upload)


def make_folder(folder: Path) -> None:
    """Make a folder below the data folder, for the owner alone. `Path.mkdir` gives its mode to the last folder only."""
    for path in (*reversed(folder.parents), folder):
        if not path.exists():
            path.mkdir(mode=0o700, exist_ok=True)


def move_durably(source: Path, target: Path) -> None:
    """Move a synced file, so that it is complete or absent even after a power cut."""
    make_folder(target.parent)
    source.replace(target)
    sync_folders({target.parent, source.parent})


def sync_folders(folders: Iterable[Path]) -> None:
    """Have the names in folders outlive a power cut. Raises OSError."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Turn an OSError into StorageFull."""
    try:
        with on_disk():
            yield
    except OSError as error:
        logger.error("a file cannot be stored: %s", error)
        raise StorageFull(
            "The portal's disk cannot take the file: it is full or cannot be written. Tell the portal's "
            "administrator; nothing was stored."
        ) from error


# -- reading and deleting --------------------------------------------------------------------------------------------


def stored(user_id: int) -> Q:
    """Return the condition for rows of a user's files that are stored and have not expired.

    Those of message batches are none: their API knows no files.
    """
    return _kept(user_id) & ~Q(purpose=UploadPurpose.MESSAGE_BATCH)


def _kept(user_id: int) -> Q:
    return Q(user=user_id, state=UploadState.STORED) & (Q(expires_at=None) | Q(expires_at__gt=clock.now()))


def find_own(user_id: int, file_id: str) -> Upload | None:
    """Return a file of a user's message batch, by its id."""
    return Upload.objects.filter(_kept(user_id), file_id=file_id, purpose=UploadPurpose.MESSAGE_BATCH).first()


def find_upload(user_id: int, file_id: str) -> Upload | None:
    """Return a file of a user by its id."""
    return Upload.objects.filter(stored(user_id), file_id=file_id).first()


def list_uploads(
    user_id: int, count: int, after: str = "", purpose: str = "", ascending: bool = False
) -> list[Upload] | None:
    """Return at most `count` of a user's files, newest first or oldest first, that follow the file with the id `after`.

    Returns None when `after` is not the id of a file.
    """
    rows = Upload.objects.filter(stored(user_id)).order_by("pk" if ascending else "-pk")
    if purpose:
        rows = rows.filter(purpose=purpose)
    if after:
        # The cursor's own file may have been deleted; its id still says when it was created.
        last = Upload.objects.filter(user=user_id, file_id=after).values_list("pk", flat=True).first()
        if last is not None:
            rows = rows.filter(pk__gt=last) if ascending else rows.filter(pk__lt=last)
        elif after.startswith("file-"):  # those of former files are in no order
            rows = rows.filter(file_id__gt=after) if ascending else rows.filter(file_id__lt=after)
        else:
            return None
    return list(rows[:count])


def find_uploads(user_id: int, file_ids: Sequence[str]) -> dict[str, Upload]:
    """Return those of a user's files that have one of these ids, by id."""
    return {upload.file_id: upload for upload in Upload.objects.filter(stored(user_id), file_id__in=set(file_ids))}


@on_disk()
def open_file(upload: Upload) -> IO[bytes]:
    """Open a stored file for reading. Raises OSError."""
    return path_of(upload.storage_name).open("rb")


def remove(upload: Upload) -> bool:
    """Delete a file: marks its row, deletes the bytes, then deletes the row.

    Returns False when the disk does not delete the bytes: the file is gone for everybody, counts no more, and
    `relay.storage.files_check.sweep` tries again.
    """
    Upload.objects.filter(pk=upload.pk).update(state=UploadState.DELETING)
    upload.state = UploadState.DELETING
    try:
        unlink(upload.storage_name)
        if upload.file_id.startswith(FORMER_ID):
            _unlink_former(upload.file_id)
    except OSError as error:
        logger.error("the file %s cannot be deleted from the disk: %s", upload.storage_name, error)
        return False
    Upload.objects.filter(pk=upload.pk).delete()
    return True


@on_disk()
def _unlink_former(file_id: str) -> None:
    """Delete the bytes that AIRelays 0.x had stored under this id, and that the portal took over."""
    (folder() / file_id).unlink(missing_ok=True)


@on_disk()
def unlink(storage_name: str) -> None:
    """Delete the bytes of a file from the disk, received in full or in part."""
    for path in (partial_path(storage_name), path_of(storage_name)):
        path.unlink(missing_ok=True)
