"""How batches end: their lines become an output and an error file. Synchronous: called in threads.

Without room for the files a batch waits, though not for ever: it then ends without them, and its lines, which have been
charged, stay until there is room. They count towards the room of its user, as the files will.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Count, F, Q, QuerySet, Sum

from portal import limits
from portal.lib import clock
from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, decode, encode, objects_of
from relay.errors import RequestTooLarge, StorageFull
from relay.models import Batch, BatchLine, Upload
from relay.models.batch import BatchWait
from relay.models.byte_count import texts_of
from relay.models.upload import UploadPurpose, UploadState
from relay.protocols.anthropic_messages.batches import PATH as MESSAGES
from relay.storage import files
from relay.storage.batch_input import BatchInputLine, error, unanswered_line

MESSAGES_KEPT: Final = timedelta(days=29)  # that the results of a message batch are kept, from when it was made
CANCEL_WINDOW: Final = timedelta(minutes=10)  # in which a cancelled batch ends; OpenAI's take as long
_CLAIMED: Final = timedelta(minutes=10)  # for which a worker that writes results of an ended batch has it alone
_PAUSE: Final = timedelta(minutes=5)  # between tries to do so
_DISK: Final = "The portal's disk is full, or cannot be written. Tell the portal's administrator."
Status = Batch.Status
# Codes of errors that are about the room for results.
_ABOUT_ROOM: Final = ("storage_quota_exceeded", "storage_unavailable")
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


def finish(
    batch: Batch, lines: tuple[BatchInputLine, ...], outcome: str, owner: str, errors: Sequence[Json] = ()
) -> BatchWait | None:
    """Write the output and the error file and end a batch. Returns what it waits for when there is no space for them.

    `outcome` is the status that it ends with; completed and expired are corrected by what was answered, and by whether
    the files could be written in time. `errors` says why it failed.
    """
    batch.refresh_from_db()
    if batch.status in Batch.ENDED:
        return None
    known = _outcomes(batch)
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
        with transaction.atomic():
            if outcome in (Status.CANCELLED, Status.EXPIRED):
                Batch.objects.filter(pk=batch.pk).update(unanswered=len(missing))
            BatchLine.objects.bulk_create(missing, batch_size=500, ignore_conflicts=True)
    batch.finalizing_at = batch.finalizing_at or clock.now()
    status = batch.status if batch.status == Status.CANCELLING else Status.FINALIZING
    _name_files(batch)
    known = _outcomes(batch)
    ok = sum(known.values())
    # `total`: of one that was cancelled before it began.
    counts = {"succeeded": ok, "failed": len(known) - ok, "total": max(batch.total, len(known))}
    Batch.objects.filter(pk=batch.pk).update(status=status, finalizing_at=batch.finalizing_at, **counts)
    try:
        written = _write_files(batch, owner)
    except (RequestTooLarge, StorageFull) as full:
        return _without_room(batch, full, outcome, errors)
    _end(Batch.objects.filter(pk=batch.pk), outcome, errors, "", **counts, **written)
    delete_lines(batch.pk)
    _remove_input(batch)
    return None


def _remove_input(batch: Batch) -> None:
    """Delete the requests of a message batch that has ended: nobody can read them. They expire otherwise."""
    found = files.find_own(batch.user_id, batch.input_file_id) if batch.endpoint == MESSAGES else None
    if found is not None:
        files.remove(found)


def give_up(batch: Batch, outcome: str, owner: str, errors: Sequence[Json]) -> None:
    """End a batch without its files: they cannot be written now. `errors` says why."""
    rows = Batch.objects.filter(pk=batch.pk, owner=owner)
    if batch.lines.exists():
        _end(rows, outcome, errors, waits=BatchWait.PORTAL, unwritten=True)
    else:
        _end(rows, outcome, errors, output_file_id="", error_file_id="")


def write_unwritten(owner: str) -> bool:
    """Look at one batch that ended without its files, and write them if there is room now. Returns whether one was due.

    May run in several workers at once. `owner`: this one.
    """
    now = clock.now()
    due = Q(lease_until=None) | Q(lease_until__lte=now)
    rows = Batch.objects.filter(due, unwritten=True, status__in=Batch.ENDED)
    batch = rows.order_by(F("lease_until").asc(nulls_first=True), "pk").first()
    if batch is None:
        return False
    own = Batch.objects.filter(pk=batch.pk, unwritten=True, lease_until=batch.lease_until)
    if not own.update(owner=owner, lease_until=now + _CLAIMED):
        return True  # another worker was faster
    try:
        values = _written_later(batch, owner)
    except (RequestTooLarge, StorageFull):
        values = {"lease_until": clock.now() + _PAUSE}
    Batch.objects.filter(pk=batch.pk, owner=owner).update(owner="", **values)
    if "unwritten" in values:
        delete_lines(batch.pk)
        _remove_input(batch)
    return True


def _written_later(batch: Batch, owner: str) -> dict[str, object]:
    """Write the files of an ended batch. Returns what is to be stored of that. Raises RequestTooLarge, StorageFull."""
    told = objects_of({"errors": decode(batch.errors)}, "errors") if batch.errors else []
    left = [one for one in told if one.get("code") not in _ABOUT_ROOM]
    values: dict[str, object] = {"unwritten": False, "lease_until": None, "waits_for": ""}
    keep = batch.output_keep_seconds
    ended_at = getattr(batch, _ENDED_AT[Status(batch.status)])
    if keep and ended_at is not None and ended_at + timedelta(seconds=keep) <= clock.now():
        left.append(error("results_expired", "There was no room for the results until they expired."))
        names: dict[str, str] = {"output_file_id": "", "error_file_id": ""}
    else:
        _name_files(batch)
        names = _write_files(batch, owner)
    return {**values, **names, "errors": encode(left).decode() if left else ""}


def _without_room(
    batch: Batch, full: RequestTooLarge | StorageFull, outcome: str, errors: Sequence[Json]
) -> BatchWait | None:
    """Let a batch wait for room, or end it when it has waited long enough. Returns what it waits for."""
    waits = BatchWait.ROOM if isinstance(full, RequestTooLarge) else BatchWait.PORTAL
    code, why = (_ABOUT_ROOM[0], full.message) if waits is BatchWait.ROOM else (_ABOUT_ROOM[1], _DISK)
    now, until = clock.now(), batch.expires_at
    if batch.status == Status.CANCELLING:
        until = min(until, (batch.cancelling_at or now) + CANCEL_WINDOW)
    if now < until:
        message = (
            f"The results wait for room, until {until:%Y-%m-%d %H:%M} UTC at most. {why} The batch ends then, and what "
            "was answered stays stored."
        )
        Batch.objects.filter(pk=batch.pk).update(errors=encode([*errors, error(code, message)]).decode())
        return waits
    message = (
        f"There was no room for the results in time. {why} What was answered and charged is stored: as soon as "
        "there is room, this batch has its files."
    )
    known = _outcomes(batch)
    ok = sum(known.values())
    _end(
        Batch.objects.filter(pk=batch.pk),
        Status.EXPIRED if outcome == Status.COMPLETED else outcome,
        [*errors, error(code, message)],
        total=max(batch.total, len(known)),
        succeeded=ok,
        failed=len(known) - ok,
        unwritten=True,
        waits=waits,
    )
    return None


def _end(
    rows: QuerySet[Batch], outcome: str, errors: Sequence[Json], waits: BatchWait | str = "", **values: int | str
) -> None:
    rows.update(
        status=outcome,
        errors=encode(list(errors)).decode() if errors else "",
        owner="",
        lease_until=None,
        waits_for=waits,
        waits_since=None,
        waits_until=None,
        ends_about=None,
        **values,
        **{_ENDED_AT[Batch.Status(outcome)]: clock.now()},
    )


def delete_lines(batch_pk: int | None = None) -> None:
    """Delete the lines of a batch that has ended, or with None of all such, whose files have been written.

    A thousand at a time, so that nothing else waits long for the database.
    """
    rows = BatchLine.objects.filter(batch__status__in=Batch.ENDED, batch__unwritten=False)
    if batch_pk is not None:
        rows = rows.filter(batch=batch_pk)
    while found := list(rows.values_list("pk", flat=True)[:1000]):
        BatchLine.objects.filter(pk__in=found).delete()


def _outcomes(batch: Batch) -> dict[int, bool]:
    """The numbers of the lines that have an outcome, and whether they were answered."""
    return dict(batch.lines.values_list("number", "ok"))


def _name_files(batch: Batch) -> None:
    """Name the files before they are written, so that another try writes no second pair."""
    if not batch.output_file_id:
        batch.output_file_id, batch.error_file_id = f"file-{time_ordered_hex()}", f"file-{time_ordered_hex()}"
        Batch.objects.filter(pk=batch.pk).update(output_file_id=batch.output_file_id, error_file_id=batch.error_file_id)


def _write_files(batch: Batch, owner: str) -> dict[str, str]:
    """Write the output and the error file. Returns their ids, empty for one that would be empty, by their columns.

    Raises RequestTooLarge, StorageFull.
    """
    expires = clock.now() + timedelta(seconds=batch.output_keep_seconds) if batch.output_keep_seconds else None
    if batch.endpoint == MESSAGES:
        expires = batch.created_at + MESSAGES_KEPT
    return {
        name: file_id if _write_file(batch, ok, file_id, expires, owner) else ""
        for ok, name, file_id in (
            (True, "output_file_id", batch.output_file_id),
            (False, "error_file_id", batch.error_file_id),
        )
    }


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
        if not files.remove(existing):
            raise StorageFull("The portal's disk does not delete what is left of an earlier try.")
    size = int(sums["bytes"]) + int(sums["rows"])  # each line with its end
    replaced = int(sums["bytes"]) + int(sums["rows"]) * limits.ROW_BYTES
    writer = files.UploadWriter(
        files.reserve_upload(batch.user_id, size, owner, name=file_id.removeprefix("file-"), replaces=replaced)
    )
    try:
        for body in texts_of(rows, "body"):
            writer.write(body.encode() + b"\n")
        name = f"{batch.batch_id}_{'output' if ok else 'error'}.jsonl"
        purpose = UploadPurpose.MESSAGE_BATCH if batch.endpoint == MESSAGES else UploadPurpose.BATCH_OUTPUT
        writer.finish(UploadState.STORED, name, purpose, "application/jsonl", expires)
        return True
    finally:
        writer.close()
