"""Reads and writes batches of /v1/batches, and lets workers claim them. Synchronous: called in threads, or by pages."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from django.db.models import Count, QuerySet, Sum

from portal import limits
from portal.lib import clock
from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode, encode
from relay.errors import RequestTooLarge, StorageFull
from relay.models import Batch, BatchLine, Token, Upload
from relay.models.batch import BatchWait
from relay.models.byte_count import texts_of
from relay.models.upload import UploadPurpose, UploadState
from relay.storage import files
from relay.storage.batch_input import BatchInput, BatchInputLine, error, parse, unanswered_line
from relay.storage.room import check_room

logger: Final = logging.getLogger(__name__)
COMPLETION_WINDOW: Final = timedelta(hours=24)
_TURN_SHOWN_AFTER: Final = timedelta(seconds=5)  # that a new batch is usually run within
Status = Batch.Status
# Of lines that have no outcome when a batch ends with this status: code and message.
_WITHOUT_OUTCOME: Final = {
    Status.EXPIRED: ("batch_expired", "The batch did not end in time."),
    Status.CANCELLED: ("batch_cancelled", "The batch was cancelled before this request was answered."),
    Status.FAILED: ("batch_failed", "The batch failed before this request was answered."),
    Status.COMPLETED: ("server_error", "What came of this request could not be stored. Send it again."),
}

_ENDED_AT: Final = {
    Status.COMPLETED: "completed_at",
    Status.EXPIRED: "expired_at",
    Status.CANCELLED: "cancelled_at",
    Status.FAILED: "failed_at",
}


def _seconds(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment is not None else None


def batch_object(batch: Batch) -> Json:
    """Return a batch as the API sends it."""
    ok, bad = counts_of(batch)
    ended = batch.status in Batch.ENDED
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
        "output_file_id": (ended and batch.output_file_id) or None,
        "error_file_id": (ended and batch.error_file_id) or None,
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
        **({} if ended else _going_on(batch)),
    }
    # Times and files that do not exist yet are left out.
    return {name: value for name, value in shown.items() if value is not None or name == "metadata"}


def _going_on(batch: Batch) -> Json:
    """Members that OpenAI's batches do not have."""
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
    if not reason or batch.status not in (Status.VALIDATING, Status.IN_PROGRESS, Status.FINALIZING):
        return "", None
    until = batch.waits_until
    return str(
        Batch(waits_for=reason).get_waits_for_display()
    ), until if until is not None and until > clock.now() else None


def _waiting_for(batch: Batch) -> str:
    """A BatchWait, empty when a batch waits for nothing. What no worker runs has not had its turn."""
    waits_here = not batch.owner and clock.now() - batch.created_at > _TURN_SHOWN_AFTER
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
    """Return a batch of a user by its id."""
    return Batch.objects.filter(user=user_id, batch_id=batch_id).first()


def newest_batches(user_id: int, count: int, before: Batch | None = None) -> list[Batch]:
    """At most `count` batches of a user, newest first. `before`: only batches that are older than it."""
    rows = Batch.objects.filter(user=user_id)
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
    upload = Upload.objects.filter(files.stored(batch.user_id), file_id=batch.input_file_id).first()
    if upload is None:
        message = (
            f"There is no file “{batch.input_file_id}” of your account. Upload the requests with POST /v1/files and "
            "the purpose batch."
        )
        return BatchInput((), "", (error("file_not_found", message, param="input_file_id"),))
    if upload.purpose != UploadPurpose.BATCH:
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


def finish(
    batch: Batch, lines: tuple[BatchInputLine, ...], outcome: str, owner: str, errors: Sequence[Json] = ()
) -> bool:
    """Write the output and the error file and end a batch. Returns False when there is no space for the files yet.

    `outcome` is the status that it ends with; completed and expired are corrected by what was answered. `errors` says
    why it failed.
    """
    batch.refresh_from_db()
    if batch.status in Batch.ENDED:
        return True
    known = done_lines(batch)
    missing_some = any(line.number not in known for line in lines)
    if outcome == Status.EXPIRED and not missing_some:
        outcome = Status.COMPLETED
    if missing_some:
        code, message = _WITHOUT_OUTCOME[Status(outcome)]
        missing = [
            BatchLine(batch=batch, number=line.number, ok=False, body=unanswered_line(line, code, message))
            for line in lines
            if line.number not in known
        ]
        BatchLine.objects.bulk_create(missing, batch_size=500, ignore_conflicts=True)
    if not batch.output_file_id:  # named before they are written, so that a retry after a crash writes no second pair
        batch.output_file_id, batch.error_file_id = f"file-{time_ordered_hex()}", f"file-{time_ordered_hex()}"
    batch.finalizing_at = batch.finalizing_at or clock.now()
    status = batch.status if batch.status == Status.CANCELLING else Status.FINALIZING
    Batch.objects.filter(pk=batch.pk).update(
        status=status,
        finalizing_at=batch.finalizing_at,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
    )
    expires = clock.now() + timedelta(seconds=batch.output_keep_seconds) if batch.output_keep_seconds else None
    try:
        written = [
            _write_file(batch, ok, file_id, expires, owner)
            for ok, file_id in ((True, batch.output_file_id), (False, batch.error_file_id))
        ]
    except (RequestTooLarge, StorageFull) as full:
        Batch.objects.filter(pk=batch.pk).update(
            errors=encode([error("storage_quota_exceeded", f"The results wait for room: {full.message}")]).decode()
        )
        return False
    known = done_lines(batch)
    ok = sum(known.values())
    _end(
        Batch.objects.filter(pk=batch.pk),
        outcome,
        errors,
        total=max(batch.total, len(known)),  # of one that was cancelled before it began
        succeeded=ok,
        failed=len(known) - ok,
        output_file_id=batch.output_file_id if written[0] else "",
        error_file_id=batch.error_file_id if written[1] else "",
    )
    delete_lines(batch.pk)
    return True


def give_up(batch: Batch, outcome: str, owner: str, errors: Sequence[Json]) -> None:
    """End a batch without its files: they cannot be written. `errors` says why."""
    _end(Batch.objects.filter(pk=batch.pk, owner=owner), outcome, errors, output_file_id="", error_file_id="")


def _end(rows: QuerySet[Batch], outcome: str, errors: Sequence[Json], **values: int | str) -> None:
    rows.update(
        status=outcome,
        errors=encode(list(errors)).decode() if errors else "",
        owner="",
        lease_until=None,
        waits_for="",
        waits_since=None,
        waits_until=None,
        ends_about=None,
        **values,
        **{_ENDED_AT[Batch.Status(outcome)]: clock.now()},
    )


def delete_lines(batch_pk: int | None = None) -> None:
    """Delete the lines of a batch that has ended, or with None of all such: their files have been written.

    A thousand at a time, so that nothing else waits long for the database.
    """
    rows = BatchLine.objects.filter(batch__status__in=Batch.ENDED)
    if batch_pk is not None:
        rows = rows.filter(batch=batch_pk)
    while found := list(rows.values_list("pk", flat=True)[:1000]):
        BatchLine.objects.filter(pk__in=found).delete()


def _write_file(batch: Batch, ok: bool, file_id: str, expires: datetime | None, owner: str) -> bool:
    """Write the output (`ok`) or the error file. Returns False when it would be empty.

    Raises RequestTooLarge, StorageFull.
    """
    rows = batch.lines.filter(ok=ok).order_by("number")
    sums = rows.aggregate(bytes=Sum("size"), rows=Count("pk"))
    if not sums["rows"]:
        return False
    existing = Upload.objects.filter(file_id=file_id).first()
    if existing is not None:
        if existing.state == UploadState.STORED:
            return True
        files.remove(existing)
    size = int(sums["bytes"]) + int(sums["rows"])  # each line with its end
    replaced = int(sums["bytes"]) + int(sums["rows"]) * limits.ROW_BYTES
    writer = files.UploadWriter(
        files.reserve_upload(batch.user_id, size, owner, name=file_id.removeprefix("file-"), replaces=replaced)
    )
    try:
        for body in texts_of(rows, "body"):
            writer.write(body.encode() + b"\n")
        name = f"{batch.batch_id}_{'output' if ok else 'error'}.jsonl"
        writer.finish(UploadState.STORED, name, UploadPurpose.BATCH_OUTPUT, "application/jsonl", expires)
        return True
    finally:
        writer.close()
