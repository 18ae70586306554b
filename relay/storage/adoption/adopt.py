"""Takes over what AIRelays 0.x has stored in the data folder: files and conversations, under the ids that they have.

What it stored stays as it is: its tables are only read, and a file becomes a second name of the same bytes, or a copy
where the disk has no such names. Each thing is taken over once, in one transaction, so that a portal that is killed
meanwhile goes on where it was, and what was deleted here does not come back. Synchronous.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from django.conf import settings
from django.db import DataError, IntegrityError, transaction

from accounts.models import User
from portal.lib import clock, crypto
from portal.lib.ids import time_ordered_hex
from portal.lib.json import decode_object, encode, text_of
from relay.models import Adoption, Conversation, ConversationItem, Upload
from relay.models.upload import UploadPurpose, UploadState
from relay.storage import files
from relay.storage.adoption.former import FormerConversation, FormerFile, read_former
from relay.storage.responses import with_ids

logger: Final = logging.getLogger(__name__)
_KEEP: Final = timedelta(days=30)  # of conversations, where none are kept
_BATCH: Final = 500  # files in one transaction
_BATCH_BYTES: Final = 32 * 1024 * 1024
_MANY: Final = 200  # files and conversations, which take more than a second
_ITEMS: Final = 1000  # of a conversation, written at once


@dataclass(slots=True)
class Adopted:
    """What was taken over, and what could not be."""

    files: int = 0
    conversations: int = 0
    lost: list[str] = field(default_factory=list)  # a sentence each
    folders: set[Path] = field(default_factory=set)  # in which names are new that a power cut could take away


def adopt(folder: Path, owner: User, begin: Callable[[int], object] = lambda count: None) -> Adopted:
    """Take over what has not been yet, for a user. What cannot be read is told, and tried again at the next start.

    `begin` is told how much there is before it takes long.
    """
    done = Adopted()
    known = set(Adoption.objects.values_list("source", flat=True))
    try:
        with read_former(folder, known) as state:
            if state.size >= _MANY:
                begin(state.size)
            for files in _batches(state.files):
                with transaction.atomic():  # a commit for each would have the disk synced for each
                    for file in files:
                        _adopt_one(file.id, partial(_adopt_file, file, owner, done), done)
                    _sync(done.folders)
            for conversation in state.conversations:
                _adopt_one(conversation.id, partial(_adopt_conversation, conversation, owner, done), done)
    except sqlite3.Error as error:
        done.lost.append(f"what AIRelays 0.x has stored in {folder} cannot be read: {error}")
    return done


def _batches(files: Iterable[FormerFile]) -> Iterator[list[FormerFile]]:
    """Files that are taken over together: few enough that nobody else waits long to write into the database."""
    batch: list[FormerFile] = []
    size = 0
    for file in files:
        if batch and (len(batch) >= _BATCH or size + file.size > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += max(file.size, 0)
    if batch:
        yield batch


def _adopt_one(name: str, take: Callable[[], None], done: Adopted) -> None:
    """Take over one thing. What the database does not take is told, and keeps no portal from starting."""
    try:
        take()
    except IntegrityError:
        pass  # a portal on another machine was faster
    except DataError:
        done.lost.append(f"{name[:60]!r} is not taken over: the database cannot store it")


def adopt_once(source: str, take: Callable[[], bool]) -> bool:
    """Take over something else of AIRelays 0.x, unless that was done before. Returns whether it was taken over now.

    `source`: what it is, and a fingerprint. `take` returns whether it took it; otherwise it is asked again next time.
    """
    if Adoption.objects.filter(source=source).exists() or not take():
        return False
    return Adoption.objects.get_or_create(source=source)[1]


# -- files -----------------------------------------------------------------------------------------------------------


def _adopt_file(file: FormerFile, owner: User, done: Adopted) -> None:
    if not _is_id(file.id) or Upload.objects.filter(file_id=file.id).exists():
        done.lost.append(f"the file {file.id[:60]!r} is not taken over: there is another one with this id")
        return
    if file.path is None:
        done.lost.append(f"the file {file.id} is not taken over: it is not in the folder of uploads")
        return
    # The same name each time, so that a link whose row was not written any more is not in the way, and not left over.
    name = hashlib.sha256(file.id.encode()).hexdigest()[:32]
    try:
        size, digest = _size_and_digest(file.path)
        done.folders |= _link(file.path, name)
    except OSError as error:
        done.lost.append(f"the file {file.id} is not taken over: {error.strerror or error}")
        return
    if size != file.size or (file.sha256 and digest != file.sha256):
        done.lost.append(f"the file {file.id} is taken over as it is on the disk: it is not what was uploaded")
    with transaction.atomic():
        _once(f"file:{file.id}")
        row = Upload.objects.create(
            file_id=file.id,
            user=owner,
            filename=files.clean_name(file.filename),
            purpose=file.purpose if file.purpose in UploadPurpose.values else UploadPurpose.USER_DATA,
            content_type=files.clean_name(file.content_type or "application/octet-stream")[:120],
            size=size,
            sha256=digest,
            storage_name=name,
            state=UploadState.STORED,
        )
        Upload.objects.filter(pk=row.pk).update(created_at=_moment(file.created_at))
    done.files += 1


def _is_id(text: str) -> bool:
    """Whether an id can be stored and named in an address."""
    return 0 < len(text) <= 40 and text.isascii() and text.replace("_", "").replace("-", "").isalnum()


def _size_and_digest(path: Path) -> tuple[int, str]:
    with path.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
        return os.fstat(source.fileno()).st_size, digest


def _sync(folders: set[Path]) -> None:
    """Have new names outlive a power cut, once for many: a sync for each file would take minutes."""
    try:
        files.sync_folders(folders)
    except OSError as error:  # they are there, and so are the old ones
        logger.warning("the folders of uploads could not be synced: %s", error.strerror)
    folders.clear()


def _link(source: Path, name: str) -> set[Path]:
    """Give a file a second name in the place of an upload, or copy it where that is not possible.

    Returns the folders that are to be synced.
    """
    partial = files.partial_path(name)
    files.make_folder(partial.parent)
    partial.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), partial)
    except OSError:  # another disk, or one without such names
        with source.open("rb") as read, open(partial, "xb", opener=crypto.open_private) as written:
            shutil.copyfileobj(read, written)
            written.flush()
            os.fsync(written.fileno())
    target = files.path_of(name)
    files.make_folder(target.parent)
    partial.replace(target)
    partial.unlink(missing_ok=True)  # to move a file onto another name of itself moves nothing
    return {target.parent, partial.parent}


# -- conversations ---------------------------------------------------------------------------------------------------


def _adopt_conversation(conversation: FormerConversation, owner: User, done: Adopted) -> None:
    items = decode_object(f'{{"items":{conversation.items}}}')
    given = items.get("items") if items is not None else None
    if not _is_id(conversation.id) or not isinstance(given, list):
        done.lost.append(f"the conversation {conversation.id[:60]!r} is not taken over: it cannot be read")
        return
    if Conversation.objects.filter(conversation_id=conversation.id).exists():
        done.lost.append(f"the conversation {conversation.id} is not taken over: there is another one with this id")
        return
    whole = with_ids([item for item in given if isinstance(item, dict)], time_ordered_hex(), set())
    metadata = decode_object(conversation.metadata) or {}
    with transaction.atomic():
        _once(f"conversation:{conversation.id}")
        row = Conversation.objects.create(
            conversation_id=conversation.id,
            user=owner,
            metadata=encode(metadata).decode(),
            created_at=_moment(conversation.created_at),
            expires_at=clock.now() + (timedelta(days=settings.CONFIG.response_keep_days) or _KEEP),
        )
        ConversationItem.objects.bulk_create(
            [
                ConversationItem(conversation=row, item_id=text_of(item, "id")[:120], body=encode(item).decode())
                for item in whole
            ],
            batch_size=_ITEMS,
        )
    done.conversations += 1


def _once(source: str) -> None:
    Adoption.objects.create(source=source)


def _moment(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC) if seconds > 0 else clock.now()
    except (OverflowError, ValueError, OSError):
        return clock.now()
