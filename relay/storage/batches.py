"""Reads and writes batches of /v1/batches. Synchronous: called in threads, or by pages.

How workers claim them: `relay.storage.batch_claims`; how they end: `relay.storage.batch_results`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from portal import limits
from portal.lib import clock
from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode, encode
from relay.models import Batch, BatchLine, Token
from relay.models.batch import BatchWait
from relay.models.upload import UploadPurpose
from relay.protocols.anthropic_messages.batches import PATH as MESSAGES
from relay.storage import files
from relay.storage.batch_input import BatchInput, error, parse
from relay.storage.room import check_room

logger: Final = logging.getLogger(__name__)
COMPLETION_WINDOW: Final = timedelta(hours=24)
_TURN_SHOWN_AFTER: Final = timedelta(seconds=5)  # that a new batch is usually run within
Status = Batch.Status


def _seconds(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment is not None else None


def batch_object(batch: Batch) -> Json:
    """Return a batch as the API sends it."""
    ok, bad = counts_of(batch)
    ended = batch.status in Batch.ENDED
    written = ended and not batch.unwritten
    errors = decode(batch.errors) if batch.errors else None
    shown: Json = {
        "id": batch.batch_id,
        "object": "batch",
        "endpoint": batch.endpoint,
        **({"model": batch.model} if batch.model else {}),
        "errors": {"object": "list", "data": errors} if errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": (written and batch.output_file_id) or None,
        "error_file_id": (written and batch.error_file_id) or None,
        "created_at": _seconds(batch.created_at),
        "in_progress_at": _seconds(batch.in_progress_at),
        "expires_at": _seconds(batch.expires_at),
        "finalizing_at": _seconds(batch.finalizing_at),
        "completed_at": _seconds(batch.completed_at),
        "failed_at": _seconds(batch.failed_at),
        "expired_at": _seconds(batch.expired_at),
        "cancelling_at": _seconds(batch.cancelling_at),
        "cancelled_at": _seconds(batch.cancelled_at),
        "request_counts": {"total": batch.total, "completed": ok, "failed": bad},
        "metadata": decode(batch.metadata),
        **({} if written else _going_on(batch)),
    }
    # Times and files that do not exist yet are left out.
    return {name: value for name, value in shown.items() if value is not None or name == "metadata"}


def _going_on(batch: Batch) -> Json:
    """Members that OpenAI's batches do not have, of one that has not ended, or has ended without its files."""
    return {
        "waiting_for": _waiting_for(batch) or None,
        "waiting_until": _seconds(batch.waits_until),
        "estimated_end_at": _seconds(batch.ends_about),
    }


def counts_of(batch: Batch) -> tuple[int, int]:
    """Return how many requests of a batch were answered and how many failed, as its worker wrote it last."""
    return batch.succeeded, batch.failed


def wait_of(batch: Batch) -> tuple[str, datetime | None]:
    """Return what a batch waits for, in words, empty when for nothing; and until when, None: not known, or soon."""
    reason = _waiting_for(batch)
    ending = batch.status == Status.CANCELLING and batch.finalizing_at is None  # it waits for nothing any more
    if not reason or ending or (batch.status in Batch.ENDED and not batch.unwritten):
        return "", None
    until = batch.waits_until
    return str(
        Batch(waits_for=reason).get_waits_for_display()
    ), until if until is not None and until > clock.now() else None


def _waiting_for(batch: Batch) -> str:
    """A BatchWait, empty when a batch waits for nothing. What no worker runs has not had its turn."""
    waits_here = not (batch.owner or batch.unwritten) and clock.now() - batch.created_at > _TURN_SHOWN_AFTER
    return batch.waits_for or (BatchWait.TURN.value if waits_here else "")


def error_summary(batch: Batch) -> str:
    """Return the first error of a batch in one sentence, empty when it has none."""
    found = decode(batch.errors) if batch.errors else None
    first = found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else {}
    line = f"Line {first['line']}: " if first.get("line") else ""
    return line + str(first.get("message", "")) if first else ""


def create_batch(
    user_id: int, token_id: int, endpoint: str, input_file_id: str, metadata: object, keep_seconds: int | None
) -> Batch:
    """Create a batch. `keep_seconds`: how long its output files are stored, None: for ever. Raises RequestTooLarge."""
    now = clock.now()
    check_room(user_id, limits.ROW_BYTES)
    return Batch.objects.create(
        batch_id=f"batch_{time_ordered_hex()}",
        user_id=user_id,
        token_id=token_id,
        endpoint=endpoint,
        input_file_id=input_file_id[:64],
        completion_window="24h",
        metadata=encode(metadata).decode(),
        output_keep_seconds=keep_seconds,
        created_at=now,
        expires_at=now + COMPLETION_WINDOW,
    )


def find_batch(user_id: int, batch_id: str) -> Batch | None:
    """Return a batch of a user by its id. Message batches are those of another API."""
    return Batch.objects.filter(user=user_id, batch_id=batch_id).exclude(endpoint=MESSAGES).first()


def newest_batches(user_id: int, count: int, before: Batch | None = None) -> list[Batch]:
    """At most `count` batches of a user, newest first. `before`: only batches that are older than it."""
    rows = Batch.objects.filter(user=user_id).exclude(endpoint=MESSAGES)
    if before is not None:
        rows = rows.filter(pk__lt=before.pk)
    return list(rows[:count])


def batch_token_digest(batch: Batch) -> str | None:
    """The digest of the token that pays for a batch, None when the token is gone.

    Always read again: tokens are rotated.
    """
    if batch.token_id is None:
        return None
    return Token.objects.filter(pk=batch.token_id).values_list("digest", flat=True).first()


def cancel_batch(batch: Batch) -> None:
    """Ask the worker of a batch to end it. Requests that are running are finished first."""
    Batch.objects.filter(pk=batch.pk, status__in=(Status.VALIDATING, Status.IN_PROGRESS)).update(
        status=Status.CANCELLING, cancelling_at=clock.now()
    )
    Batch.objects.filter(pk=batch.pk, owner="").update(lease_until=None)  # if it was put back for a while
    batch.refresh_from_db()


# -- for the worker that runs it -------------------------------------------------------------------------------------


def read_input(batch: Batch) -> BatchInput:
    """Read and parse the input file. A file that is missing or has the wrong purpose becomes an error in the result."""
    own = batch.endpoint == MESSAGES
    find = files.find_own if own else files.find_upload
    upload = find(batch.user_id, batch.input_file_id)
    if upload is None:
        message = (
            f"There is no file “{batch.input_file_id}” of your account. Upload the requests with POST /v1/files and "
            "the purpose batch."
        )
        return BatchInput((), "", (error("file_not_found", message, param="input_file_id"),))
    if upload.purpose != UploadPurpose.BATCH and not own:
        return BatchInput(
            (),
            "",
            (
                error(
                    "invalid_purpose",
                    f"The file “{upload.filename}” was uploaded for {upload.purpose}; a batch needs one for batch.",
                    param="input_file_id",
                ),
            ),
        )
    try:
        content = files.path_of(upload.storage_name).read_bytes()
    except FileNotFoundError:
        logger.error("the file %s of a batch is recorded, but not on the disk", upload.file_id)
        message = (
            f"The content of the file “{upload.file_id}” is not on the portal's disk any more. Upload it again, and "
            "tell the portal's administrator."
        )
        return BatchInput((), "", (error("file_not_found", message, param="input_file_id"),))
    return parse(content, batch.endpoint)


def start_batch(batch: Batch, parsed: BatchInput) -> None:
    """Start a batch whose input has been parsed, or mark it failed when the input has errors."""
    now = clock.now()
    if parsed.errors:
        Batch.objects.filter(pk=batch.pk, status=Status.VALIDATING).update(
            status=Status.FAILED, failed_at=now, errors=encode(list(parsed.errors)).decode(), owner=""
        )
    else:
        Batch.objects.filter(pk=batch.pk, status=Status.VALIDATING).update(
            status=Status.IN_PROGRESS, in_progress_at=now, total=len(parsed.lines), model=parsed.model
        )
    batch.refresh_from_db()


def done_lines(batch: Batch) -> dict[int, bool]:
    """Return the numbers of the lines that have an outcome, and whether they were answered."""
    return dict(batch.lines.values_list("number", "ok"))


def has_outcome(batch: Batch, number: int) -> bool:
    """Whether the request on a line was answered, or has failed."""
    return batch.lines.filter(number=number).exists()


def all_answered(batch: Batch) -> bool:
    """Whether every request of a batch has its outcome."""
    return batch.lines.count() >= batch.total


def write_failures(batch: Batch, bodies: Iterable[tuple[int, str]]) -> None:
    """Record that the requests on lines failed: their numbers, and the lines of the error file."""
    rows = [BatchLine(batch=batch, number=number, ok=False, body=body) for number, body in bodies]
    BatchLine.objects.bulk_create(rows, batch_size=500, ignore_conflicts=True)
