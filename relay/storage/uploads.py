"""Uploads in parts: announced, received part by part, then joined to one file or cancelled.

Synchronous; called in threads.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import IO, Final

from django.db import transaction
from django.db.models import Sum

from portal.lib import clock
from portal.lib.ids import time_ordered_hex
from portal.services.timeouts import on_disk
from relay.errors import StorageFull
from relay.models import Upload, UploadSession
from relay.models.upload import UploadState
from relay.storage import files
from relay.storage.room import check_room

logger: Final = logging.getLogger(__name__)
_LIFETIME: Final = timedelta(hours=1)
_REMEMBERED: Final = timedelta(days=30)  # how long the row of an ended upload is kept
_BLOCK: Final = 1 << 20
_PENDING: Final = UploadSession.Status.PENDING


def create_session(
    user_id: int, size: int, filename: str, purpose: str, content_type: str, keep_seconds: int | None
) -> UploadSession:
    """Announce a file of `size` bytes that arrives in parts. `keep_seconds`: how long the whole file is kept."""
    now = clock.now()
    check_room(user_id, 0)
    return UploadSession.objects.create(
        upload_id=f"upload_{time_ordered_hex()}",
        user_id=user_id,
        filename=files.clean_name(filename),
        purpose=purpose,
        content_type=content_type,
        size=size,
        keep_seconds=keep_seconds,
        created_at=now,
        expires_at=now + _LIFETIME,
    )


def find_session(user_id: int, upload_id: str) -> UploadSession | None:
    """Return an upload of a user.

    One whose time is over has the status expired, even before `expire_sessions` saw it.
    """
    session = UploadSession.objects.filter(user=user_id, upload_id=upload_id).first()
    if session is not None and session.status == _PENDING and session.expires_at <= clock.now():
        session.status = UploadSession.Status.EXPIRED
    return session


def stored_parts(session: UploadSession) -> list[Upload]:
    """Return the parts that have been received in full."""
    return list(session.parts.filter(state=UploadState.PART))


def received_parts(session: UploadSession) -> tuple[int, int]:
    """Return the bytes of the stored parts, and the number of parts including those that are still being received."""
    size = session.parts.filter(state=UploadState.PART).aggregate(sum=Sum("size"))["sum"]
    return size or 0, session.parts.count()


def cancel_session(session: UploadSession) -> bool:
    """Cancel an upload and delete its parts. Returns False when it was no longer pending."""
    if not UploadSession.objects.filter(pk=session.pk, status=_PENDING).update(status=UploadSession.Status.CANCELLED):
        return False
    _delete_parts(session)
    session.status = UploadSession.Status.CANCELLED
    return True


def store_part(session: UploadSession, writer: files.UploadWriter) -> Upload | None:
    """Store a part that has arrived. Returns None when the upload has ended meanwhile. Raises StorageFull."""
    writer.move_into_place()
    with transaction.atomic():
        # Whoever ends it waits for this, and deletes the part then.
        if not UploadSession.objects.filter(pk=session.pk, status=_PENDING).update(status=_PENDING):
            return None
        return writer.finish(UploadState.PART, session.filename, session.purpose, session.content_type)


def join_parts(session: UploadSession, parts: Sequence[Upload], md5: str, owner: str) -> Upload | str | None:
    """Join the parts of an upload to one file.

    Returns its row, or what is wrong with the parts; None when the upload has ended meanwhile. Raises StorageFull, also
    when the disk does not give a part.
    `md5` is the hex digest that the client sent, empty when it sent none.
    """
    outcome = _join(session, parts, md5, owner)
    if isinstance(outcome, Upload):
        _delete_parts(session)
        session.refresh_from_db()
    return outcome


def _join(session: UploadSession, parts: Sequence[Upload], md5: str, owner: str) -> Upload | str | None:
    upload = Upload.objects.create(
        file_id=f"file-{(name := time_ordered_hex())}",
        user_id=session.user_id,
        filename="",
        purpose="",
        content_type="",
        size=0,
        sha256="",
        storage_name=name,
        state=UploadState.RECEIVING,
        owner=owner,
    )
    writer = files.UploadWriter(upload)
    try:
        check = hashlib.md5(usedforsecurity=False)
        for part in parts:
            if not _copy(part, writer, check):
                if not UploadSession.objects.filter(pk=session.pk, status=_PENDING).exists():
                    return None  # whoever has ended it deletes the parts
                raise StorageFull(
                    "The portal's disk does not give a part of this upload. Begin a new one with POST /v1/uploads, and "
                    "tell the portal's administrator."
                )
        if writer.size != session.size:
            return (
                f"The parts have {writer.size:,} bytes together, {session.size:,} were announced. Send what is "
                "missing, or begin anew."
            )
        if md5 and check.hexdigest() != md5.lower():
            return "The parts have another MD5 than the one given. Send them again."
        expires = clock.now() + timedelta(seconds=session.keep_seconds) if session.keep_seconds else None
        writer.move_into_place()
        with transaction.atomic():
            claimed = UploadSession.objects.filter(pk=session.pk, status=_PENDING).update(
                status=UploadSession.Status.COMPLETED, file_id=upload.file_id
            )
            if not claimed:
                return None
            # The parts stop counting in the transaction in which the whole begins to count.
            session.parts.update(state=UploadState.DELETING)
            return writer.finish(UploadState.STORED, session.filename, session.purpose, session.content_type, expires)
    finally:
        writer.close()


def _copy(part: Upload, writer: files.UploadWriter, check: hashlib._Hash) -> bool:
    """Add a part to a file. Returns False when the disk does not have all of it. Raises StorageFull."""
    size = 0
    try:
        with on_disk():
            source = files.path_of(part.storage_name).open("rb")
        with source:
            while block := _read(source):
                writer.write(block)
                check.update(block)
                size += len(block)
    except OSError as error:
        logger.error("a part of %s cannot be read: %s", part.session_id, error)
        return False
    return size == part.size


@on_disk()
def _read(source: IO[bytes]) -> bytes:
    return source.read(_BLOCK)


def _delete_parts(session: UploadSession) -> None:
    """Delete the received parts of an upload."""
    for part in Upload.objects.filter(session=session).exclude(state=UploadState.RECEIVING):
        files.remove(part)


def expire_sessions(now: datetime) -> None:
    """End uploads whose time is over, and delete the rows of those that ended long ago."""
    for session in UploadSession.objects.filter(status=_PENDING, expires_at__lte=now)[:100]:
        UploadSession.objects.filter(pk=session.pk, status=_PENDING).update(status=UploadSession.Status.EXPIRED)
        _delete_parts(session)
    old = UploadSession.objects.filter(expires_at__lte=now - _REMEMBERED)
    UploadSession.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:500])).delete()
