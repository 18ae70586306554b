"""Message batches of Anthropic's API, which run as all batches do. Synchronous: called in threads.

Source: Anthropic's API reference and its SDK 2.14, November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Final

from portal import limits
from portal.lib import clock
from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode_object, encode, object_of
from relay.models import Batch
from relay.models.upload import UploadPurpose, UploadState
from relay.protocols.anthropic_messages.batches import PATH
from relay.storage import files
from relay.storage.batch_results import MESSAGES_KEPT
from relay.storage.batches import COMPLETION_WINDOW
from relay.storage.room import check_room

_PREFIX: Final = "msgbatch_"
_ID_DIGITS: Final = 31  # of its id, which a column of 40 characters holds
Status = Batch.Status


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What each request of a batch has beside its body, as the client sent it with the batch."""

    headers: Mapping[str, str]  # of the API
    beta: bool  # the address says so


def create(user_id: int, token_id: int, lines: bytes, total: int, head: RequestHead, owner: str) -> Batch:
    """Store the requests of a batch and the batch. `owner`: this worker. Raises RequestTooLarge, StorageFull."""
    now, name = clock.now(), f"{_PREFIX}{time_ordered_hex()[:_ID_DIGITS]}"
    check_room(user_id, limits.ROW_BYTES)
    writer = files.UploadWriter(files.reserve_upload(user_id, len(lines), owner))
    try:
        writer.write(lines)
        stored = writer.finish(
            UploadState.STORED,
            f"{name}_requests.jsonl",
            UploadPurpose.MESSAGE_BATCH,
            "application/jsonl",
            now + MESSAGES_KEPT,
        )
    finally:
        writer.close()
    try:
        return Batch.objects.create(
            batch_id=name,
            user_id=user_id,
            token_id=token_id,
            endpoint=PATH,
            input_file_id=stored.file_id,
            completion_window="24h",
            metadata=encode({"headers": dict(head.headers), "beta": head.beta}).decode(),
            total=total,
            created_at=now,
            expires_at=now + COMPLETION_WINDOW,
        )
    except BaseException:
        files.remove(stored)
        raise


def head_of(batch: Batch) -> RequestHead:
    found = decode_object(batch.metadata) or {}
    headers = {name: str(value) for name, value in object_of(found, "headers").items()}
    return RequestHead(headers, found.get("beta") is True)


def find(user_id: int, batch_id: str) -> Batch | None:
    """Return a message batch of a user by its id."""
    if not batch_id.startswith(_PREFIX):
        return None
    return Batch.objects.filter(user=user_id, batch_id=batch_id[:64], endpoint=PATH).first()


def page(user_id: int, count: int, after: Batch | None, before: Batch | None) -> tuple[list[Batch], bool]:
    """At most `count` message batches of a user, newest first, and whether there are more in that direction.

    Those that follow `after`, or those right before `before`.
    """
    rows = Batch.objects.filter(user=user_id, endpoint=PATH)
    if before is not None:
        found = list(rows.filter(pk__gt=before.pk).order_by("pk")[: count + 1])
        return found[:count][::-1], len(found) > count
    if after is not None:
        rows = rows.filter(pk__lt=after.pk)
    found = list(rows.order_by("-pk")[: count + 1])
    return found[:count], len(found) > count


def has_ended(batch: Batch) -> bool:
    """Whether a batch has ended, and its results are written. Without room for these it has not."""
    return batch.status in Batch.ENDED and not batch.unwritten


def batch_object(batch: Batch, address: str) -> Json:
    """A message batch as the API sends it. `address`: of the API, by which its results are named."""
    ended = has_ended(batch)
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    if ended:
        without = "canceled" if batch.cancelling_at is not None else "expired"
        counts["succeeded"] = batch.succeeded
        counts[without] = min(batch.unanswered, batch.total - batch.succeeded)
        counts["errored"] = batch.total - batch.succeeded - counts[without]
    else:
        counts["processing"] = batch.total
    gone_at = batch.created_at + MESSAGES_KEPT
    has_files = ended and bool(batch.output_file_id or batch.error_file_id)
    archived = ended and clock.now() >= gone_at
    cancelling = batch.cancelling_at is not None and not ended
    return {
        "id": batch.batch_id,
        "type": "message_batch",
        "processing_status": "ended" if ended else "canceling" if cancelling else "in_progress",
        "request_counts": counts,
        "ended_at": _text(_ended_at(batch)) if ended else None,
        "created_at": _text(batch.created_at),
        "expires_at": _text(batch.expires_at),
        "archived_at": _text(gone_at) if archived else None,
        "cancel_initiated_at": _text(batch.cancelling_at),
        "results_url": f"{address}{PATH}/batches/{batch.batch_id}/results" if has_files and not archived else None,
    }


def _ended_at(batch: Batch) -> datetime | None:
    moments = (batch.completed_at, batch.failed_at, batch.expired_at, batch.cancelled_at)
    return next((moment for moment in moments if moment is not None), None)


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat().replace("+00:00", "Z") if moment is not None else None


def delete(batch: Batch) -> None:
    """Delete a batch that has ended, with its results."""
    for name in (batch.input_file_id, batch.output_file_id, batch.error_file_id):
        found = files.find_own(batch.user_id, name) if name else None
        if found is not None:
            files.remove(found)
    batch.delete()


class Results:
    """The results of a batch, one line for each request, read from its files one after another."""

    def __init__(self, size: int) -> None:
        """`size`: in bytes, of all files."""
        self._left: list[IO[bytes]] = []
        self.size = size

    def add(self, file: IO[bytes]) -> None:
        self._left.append(file)

    def read(self, size: int) -> bytes:
        """At most so many of the next bytes; empty at the end."""
        while self._left:
            if found := self._left[0].read(size):
                return found
            self._left.pop(0).close()
        return b""

    def close(self) -> None:
        while self._left:
            self._left.pop().close()


def open_results(batch: Batch) -> Results | None:
    """Open the results of a batch; None when they have been deleted. Raises OSError."""
    names = [name for name in (batch.output_file_id, batch.error_file_id) if name]
    found = [upload for name in names if (upload := files.find_own(batch.user_id, name)) is not None]
    if len(found) < len(names) or not found:
        return None
    results = Results(sum(upload.size for upload in found))
    try:
        for upload in found:
            results.add(files.open_file(upload))
    except BaseException:
        results.close()
        raise
    return results
