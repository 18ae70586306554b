"""Batches in the database. Synchronous: called in threads, or by pages."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Count, Q

from portal.lib import clock
from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode, encode
from portal.lib.processes import is_dead
from relay.errors import RequestTooLarge
from relay.models import Batch, BatchLine, Upload
from relay.models.upload import UploadPurpose, UploadState
from relay.storage import files
from relay.storage.batch_input import BatchInputLine, Parsed, error, parse, unanswered_line

logger: Final = logging.getLogger(__name__)
LEASE: Final = timedelta(seconds=40)
WINDOW: Final = timedelta(hours=24)
Status = Batch.Status
_OPEN: Final = (Status.VALIDATING, Status.IN_PROGRESS, Status.FINALIZING, Status.CANCELLING)


def _seconds(moment: datetime | None) -> int | None:
    return int(moment.timestamp()) if moment is not None else None


def batch_object(batch: Batch) -> Json:
    ok, bad = counts_of(batch)
    ended = batch.status in Batch.ENDED
    errors = decode(batch.errors) if batch.errors else None
    shown: Json = {
        "id": batch.batch_id, "object": "batch", "endpoint": batch.endpoint, **({"model": batch.model} if batch.model else {}),
        "errors": {"object": "list", "data": errors} if errors else None, "input_file_id": batch.input_file_id, "completion_window": batch.completion_window,
        "status": batch.status, "output_file_id": (ended and batch.output_file_id) or None, "error_file_id": (ended and batch.error_file_id) or None,
        "created_at": _seconds(batch.created_at), "in_progress_at": _seconds(batch.in_progress_at), "expires_at": _seconds(batch.expires_at),
        "finalizing_at": _seconds(batch.finalizing_at), "completed_at": _seconds(batch.completed_at), "failed_at": _seconds(batch.failed_at),
        "expired_at": _seconds(batch.expired_at), "cancelling_at": _seconds(batch.cancelling_at), "cancelled_at": _seconds(batch.cancelled_at),
        "request_counts": {"total": batch.total, "completed": ok, "failed": bad}, "metadata": decode(batch.metadata),
    }  # fmt: skip
    return {name: value for name, value in shown.items() if value is not None or name == "metadata"}  # what is not there yet is left out


def counts_of(batch: Batch) -> tuple[int, int]:
    """Requests that were answered, and those that failed."""
    if batch.status in Batch.ENDED:
        return batch.succeeded, batch.failed
    found = batch.lines.aggregate(good=Count("pk", filter=Q(ok=True)), bad=Count("pk", filter=Q(ok=False)))
    return found["good"], found["bad"]


def why(batch: Batch) -> str:
    """What is wrong with it, in one sentence; empty when nothing is."""
    found = decode(batch.errors) if batch.errors else None
    first = found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else {}
    line = f"Line {first['line']}: " if first.get("line") else ""
    return line + str(first.get("message", "")) if first else ""


def create(user_id: int, token_id: int, endpoint: str, input_file_id: str, metadata: object, keep_seconds: int | None) -> Batch:
    now = clock.now()
    return Batch.objects.create(
        batch_id=f"batch_{time_ordered_hex()}", user_id=user_id, token_id=token_id, endpoint=endpoint, input_file_id=input_file_id[:64], completion_window="24h",
        metadata=encode(metadata).decode(), output_keep_seconds=keep_seconds, created_at=now, expires_at=now + WINDOW,
    )  # fmt: skip


def find(user_id: int, batch_id: str) -> Batch | None:
    return Batch.objects.filter(user=user_id, batch_id=batch_id).first()


def cancel(batch: Batch) -> None:
    """Ask for the end of a batch; what runs is waited for."""
    Batch.objects.filter(pk=batch.pk, status__in=(Status.VALIDATING, Status.IN_PROGRESS)).update(status=Status.CANCELLING, cancelling_at=clock.now())
    batch.refresh_from_db()


# -- by the worker that runs it --------------------------------------------------------------------------------------


def claim(owner: str, most: int, running: Collection[int]) -> list[Batch]:
    """Take over batches that nobody runs; `running` are those that this worker is at."""
    now = clock.now()
    taken: list[Batch] = []
    for batch in Batch.objects.filter(status__in=_OPEN).exclude(pk__in=list(running)).order_by("pk")[: most * 4]:
        if len(taken) >= most:
            break
        if batch.owner not in {"", owner} and batch.lease_until is not None and batch.lease_until > now and not is_dead(batch.owner):
            continue
        if Batch.objects.filter(pk=batch.pk, owner=batch.owner, lease_until=batch.lease_until).update(owner=owner, lease_until=now + LEASE):
            batch.owner, batch.lease_until = owner, now + LEASE
            taken.append(batch)
    return taken


def renew(batch: Batch, owner: str) -> str | None:
    """Keep a batch; returns its status, None when it is another worker's now."""
    if not Batch.objects.filter(pk=batch.pk, owner=owner).update(lease_until=clock.now() + LEASE):
        return None
    return Batch.objects.values_list("status", flat=True).get(pk=batch.pk)


def let_go(batch: Batch, owner: str) -> None:
    Batch.objects.filter(pk=batch.pk, owner=owner).update(owner="", lease_until=None)


def read_input(batch: Batch) -> Parsed:
    """The lines of the input file; or one error, when there is no such file."""
    upload = Upload.objects.filter(files.stored(batch.user_id), file_id=batch.input_file_id).first()
    if upload is None:
        message = f"There is no file “{batch.input_file_id}” of your account. Upload the requests with POST /v1/files and the purpose batch."
        return Parsed((), "", (error("file_not_found", message, param="input_file_id"),))
    if upload.purpose != UploadPurpose.BATCH:
        return Parsed((), "", (error("invalid_purpose", f"The file “{upload.filename}” was uploaded for {upload.purpose}; a batch needs one for batch.", param="input_file_id"),))
    return parse(files.path_of(upload.storage_name).read_bytes(), batch.endpoint)


def begin(batch: Batch, parsed: Parsed) -> None:
    """The input was read: the batch goes on, or has failed."""
    now = clock.now()
    if parsed.errors:
        Batch.objects.filter(pk=batch.pk, status=Status.VALIDATING).update(status=Status.FAILED, failed_at=now, errors=encode(list(parsed.errors)).decode(), owner="")
    else:
        Batch.objects.filter(pk=batch.pk, status=Status.VALIDATING).update(status=Status.IN_PROGRESS, in_progress_at=now, total=len(parsed.lines), model=parsed.model)
    batch.refresh_from_db()


def done(batch: Batch) -> set[int]:
    return set(batch.lines.values_list("number", flat=True))


def write_failure(batch: Batch, number: int, body: str) -> None:
    BatchLine.objects.get_or_create(batch=batch, number=number, defaults={"ok": False, "body": body})


def finish(batch: Batch, lines: tuple[BatchInputLine, ...], outcome: str, owner: str, errors: Sequence[Json] = ()) -> bool:
    """Write the two files and end the batch. `outcome`: the status that it ends with; `errors`: why, if it has failed. False when there is no room for the files yet."""
    batch.refresh_from_db()
    if batch.status in Batch.ENDED:
        return True
    known = done(batch)
    missing_some = any(line.number not in known for line in lines)
    if outcome == Status.COMPLETED and missing_some:  # its time was over before all were made
        outcome = Status.EXPIRED
    elif outcome == Status.EXPIRED and not missing_some:
        outcome = Status.COMPLETED
    if outcome != Status.COMPLETED:
        code, message = (
            ("batch_expired", "The batch did not end in time.") if outcome == Status.EXPIRED else ("batch_cancelled", "The batch was cancelled before this request was made.")
        )
        missing = [BatchLine(batch=batch, number=line.number, ok=False, body=unanswered_line(line, code, message)) for line in lines if line.number not in known]
        BatchLine.objects.bulk_create(missing, batch_size=500, ignore_conflicts=True)
    if not batch.output_file_id:  # named before they are made, so that a second try after a crash makes no second ones
        batch.output_file_id, batch.error_file_id = f"file-{time_ordered_hex()}", f"file-{time_ordered_hex()}"
    batch.finalizing_at = batch.finalizing_at or clock.now()
    status = batch.status if batch.status == Status.CANCELLING else Status.FINALIZING
    Batch.objects.filter(pk=batch.pk).update(status=status, finalizing_at=batch.finalizing_at, output_file_id=batch.output_file_id, error_file_id=batch.error_file_id)
    expires = clock.now() + timedelta(seconds=batch.output_keep_seconds) if batch.output_keep_seconds else None
    try:
        made = [_write_file(batch, ok, file_id, expires, owner) for ok, file_id in ((True, batch.output_file_id), (False, batch.error_file_id))]
    except RequestTooLarge as full:
        Batch.objects.filter(pk=batch.pk).update(errors=encode([error("storage_quota_exceeded", f"The results wait for room: {full.message}")]).decode())
        return False
    ok, bad = counts_of(batch)
    now = clock.now()
    stamp = {Status.COMPLETED: "completed_at", Status.EXPIRED: "expired_at", Status.CANCELLED: "cancelled_at", Status.FAILED: "failed_at"}[Batch.Status(outcome)]
    with transaction.atomic():
        Batch.objects.filter(pk=batch.pk).update(
            status=outcome, succeeded=ok, failed=bad, errors=encode(list(errors)).decode() if errors else "", owner="", lease_until=None,
            output_file_id=batch.output_file_id if made[0] else "",
            error_file_id=batch.error_file_id if made[1] else "", **{stamp: now},
        )  # fmt: skip
        BatchLine.objects.filter(batch=batch).delete()
    return True


def _write_file(batch: Batch, ok: bool, file_id: str, expires: datetime | None, owner: str) -> bool:
    """Whether there was anything to write. Raises RequestTooLarge, StorageFull."""
    rows = batch.lines.filter(ok=ok).order_by("number")
    if not rows.exists():
        return False
    there = Upload.objects.filter(file_id=file_id).first()
    if there is not None:
        if there.state == UploadState.STORED:
            return True
        files.remove(there)
    sink = files.Sink(files.begin(batch.user_id, 0, owner, name=file_id.removeprefix("file-")))
    try:
        for body in rows.values_list("body", flat=True).iterator(chunk_size=200):
            data = body.encode() + b"\n"
            if sink.size + len(data) > sink.upload.size:
                files.grow(sink.upload, max(sink.size + len(data), 2 * sink.upload.size, files.MIB))
            sink.write(data)
        name = f"{batch.batch_id}_{'output' if ok else 'error'}.jsonl"
        sink.keep(UploadState.STORED, name, UploadPurpose.BATCH_OUTPUT, "application/jsonl", expires)
        return True
    finally:
        sink.close()
