"""The files with the results of a batch: written while others write, a page at a time; and how batches end."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from portal import limits
from portal.lib import clock
from relay.errors import StorageFull
from relay.models import Batch, BatchLine, Upload
from relay.models.byte_count import texts_of
from relay.storage import batch_results, batches, files
from relay.storage.batch_input import BatchInputLine, parse
from relay.tokens.lifecycle import create_token
from tests.support.portal import People, Portal

pytestmark = pytest.mark.shared
MIB = limits.MIB


def _batch(user: Any, bodies: list[str], **fields: Any) -> Batch:
    """A batch of the worker `me`, all of whose lines were answered with these bodies."""
    token = create_token(user, "a", actor=None)[0]
    batch = batches.create_batch(user.pk, token.pk, "/v1/embeddings", "file-none", None, None)
    fields = {
        "owner": "me",
        "status": "in_progress",
        "lease_until": batch.expires_at,
        "in_progress_at": clock.now(),
    } | fields
    Batch.objects.filter(pk=batch.pk).update(total=len(bodies), **fields)
    BatchLine.objects.bulk_create(
        [BatchLine(batch=batch, number=number, ok=True, body=body) for number, body in enumerate(bodies, 1)],
        batch_size=50,
    )
    batch.refresh_from_db()
    return batch


def test_results_are_written_while_others_write(live: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    user = live.user()
    bodies = [f"{number:04d}" * 1500 for number in range(600)]  # 3.4 MiB
    batch = _batch(user, bodies)
    write, commits = files.UploadWriter.write, list[int]()

    def commit() -> None:
        type(user).objects.filter(pk=user.pk).update(last_login=clock.now())
        commits.append(1)
        connection.close()

    def write_beside_others(self: files.UploadWriter, data: bytes) -> None:
        write(self, data)
        if self.size % 20 == 1:
            return
        if len(commits) < 60:
            thread = threading.Thread(target=commit)
            thread.start()
            thread.join()

    monkeypatch.setattr(files.UploadWriter, "write", write_beside_others)
    try:
        assert batch_results.finish(batch, (), "completed", "me") is None
        assert len(commits) == 60
        batch.refresh_from_db()
        assert (batch.status, batch.succeeded, batch.lines.count()) == ("completed", 600, 0)
        upload = Upload.objects.get(file_id=batch.output_file_id)
        assert files.path_of(upload.storage_name).read_text().split() == bodies
        assert upload.size == sum(len(body) + 1 for body in bodies)
    finally:
        batch.delete()


def test_texts_are_read_about_a_mebibyte_at_a_time(people: People) -> None:
    sizes = [10, 700_000, 400_000, 3 * MIB, 5, 5, *[1] * 450]
    batch = _batch(people.owner, [str(number % 10) * size for number, size in enumerate(sizes)])
    rows = batch.lines.order_by("number")
    read: list[list[int]] = []
    with CaptureQueriesContext(connection) as queries:
        for text in texts_of(rows, "body"):
            while len(read) < len(queries) - 1:
                read.append([])
            read[-1].append(len(text))
    assert [size for page in read for size in page] == sizes
    assert [sum(page) for page in read[:3]] == [700_010, 400_000, 3 * MIB]
    assert [len(page) for page in read[3:]] == [200, 200, 52]


def test_texts_that_are_deleted_meanwhile_are_left_out(people: People) -> None:
    batch = _batch(people.owner, ["a", "b" * MIB, "c"])
    found = []
    for text in texts_of(batch.lines.order_by("number"), "body"):
        batch.lines.filter(number=2).delete()  # as whoever reads may: nothing is open
        found.append(text[0])
    assert found == ["a", "c"]


def test_results_take_the_room_of_their_lines(people: People, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = _batch(people.owner, ["x" * 5000] * 20)
    settings.CONFIG = settings.CONFIG.model_copy(update={"max_user_stored_bytes": 20 * 5512 + 4096})
    assert batch_results.finish(batch, (), "completed", "me") is None, "lines go when their file is whole"


def test_a_disk_that_takes_nothing_keeps_the_answers(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = _batch(people.owner, ["x"])

    def full(self: files.UploadWriter, data: bytes) -> None:
        raise StorageFull("The portal's disk cannot take the file.")

    with monkeypatch.context() as patch:
        patch.setattr(files.UploadWriter, "write", full)
        assert batch_results.finish(batch, (), "completed", "me") == "portal"
    batch.refresh_from_db()
    assert batch.status == "finalizing" and "disk" in batches.error_summary(batch) and batch.lines.count() == 1
    assert batch_results.finish(batch, (), "completed", "me") is None


def test_the_content_of_an_input_file_is_gone(people: People) -> None:
    writer = files.UploadWriter(files.reserve_upload(people.owner.pk, 3, "me"))
    writer.write(b"abc")
    upload = writer.finish("stored", "b.jsonl", "batch", "application/jsonl")
    batch = _batch(people.owner, [], input_file_id=upload.file_id, status="validating")
    files.path_of(upload.storage_name).unlink()
    parsed = batches.read_input(batch)
    batches.start_batch(batch, parsed)
    assert batch.status == "failed" and batches.batch_object(batch)["errors"]["data"][0]["code"] == "file_not_found"  # type: ignore[index]


def test_no_model_of_a_line_has_a_character_that_a_database_refuses(people: People) -> None:
    line = b'{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"model":"ok\\u0000","input":"a"}}'
    parsed = parse(line, "/v1/embeddings")
    batch = _batch(people.owner, [], status="validating")
    batches.start_batch(batch, parsed)
    assert (batch.status, batch.model, batch.total, parsed.lines[0].model) == ("in_progress", "ok", 1, "ok")


@pytest.mark.parametrize(
    ("outcome", "code"), [("cancelled", "batch_cancelled"), ("failed", "batch_failed"), ("expired", "batch_expired")]
)
def test_lines_without_an_answer_may_have_been_sent(people: People, outcome: str, code: str) -> None:
    batch = _batch(people.owner, ["x"])
    missing = BatchInputLine(2, "second", b"{}")
    assert batch_results.finish(batch, (BatchInputLine(1, "first", b"{}"), missing), outcome, "me") is None
    batch.refresh_from_db()
    assert (batch.status, batch.total, batch.succeeded, batch.failed) == (outcome, 2, 1, 1)
    lost = files.path_of(Upload.objects.get(file_id=batch.error_file_id).storage_name).read_text()
    assert code in lost and "was made" not in lost


def test_what_cannot_be_written_is_given_up(people: People) -> None:
    batch = _batch(people.owner, ["x"])
    batch_results.give_up(batch, "failed", "somebody else", [])
    batch.refresh_from_db()
    assert batch.status == "in_progress", "another worker has it"
    batch_results.give_up(batch, "failed", "me", [{"code": "server_error", "message": "No."}])
    batch.refresh_from_db()
    assert (batch.status, batch.owner, batches.error_summary(batch)) == ("failed", "", "No.") and batch.failed_at
    batch_results.delete_lines()
    assert batch.lines.count() == 1, "which was charged"
    assert batch_results.write_unwritten("me")
    batch.refresh_from_db()
    assert batches.batch_object(batch)["output_file_id"] and batches.error_summary(batch) == "No."
    nothing = _batch(people.owner, [])
    batch_results.give_up(nothing, "failed", "me", [])
    nothing.refresh_from_db()
    assert not nothing.unwritten and "output_file_id" not in batches.batch_object(nothing)


def _fill(user: Any) -> Upload:
    """As if the files of a user took up all that they may."""
    full = files.reserve_upload(user.pk, 0, "nobody")
    Upload.objects.filter(pk=full.pk).update(state="part", size=files.storage_limits().user)
    return full


def _ended_without_files(user: Any, bodies: list[str], outcome: str = "completed", **fields: Any) -> Batch:
    """A batch whose time is over, and for whose results there was no room."""
    batch = _batch(user, bodies, expires_at=clock.now() - timedelta(seconds=1), **fields)
    full = _fill(user)
    assert batch_results.finish(batch, (), outcome, "me") is None
    files.remove(full)
    batch.refresh_from_db()
    return batch


def test_a_batch_without_room_says_so_until_its_time_is_over(people: People) -> None:
    batch = _batch(people.owner, ["x"])
    _fill(people.owner)
    assert batch_results.finish(batch, (), "completed", "me") == "room"
    batch.refresh_from_db()
    (told,) = batches.batch_object(batch)["errors"]["data"]  # type: ignore[index]
    assert told["code"] == "storage_quota_exceeded" and f"{batch.expires_at:%H:%M} UTC" in told["message"]
    Batch.objects.filter(pk=batch.pk).update(expires_at=clock.now())
    assert batch_results.finish(batch, (), "completed", "me") is None
    batch.refresh_from_db()
    shown = batches.batch_object(batch)
    assert (shown["status"], shown["waiting_for"]) == ("expired", "room") and shown["expired_at"]
    assert shown["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    assert "output_file_id" not in shown and "error_file_id" not in shown
    assert "stored" in batches.error_summary(batch) and "room" in batches.wait_of(batch)[0]
    batch_results.delete_lines()
    assert batch.lines.count() == 1, "which was charged"


def test_results_are_found_again_once_there_is_room(people: People) -> None:
    batch = _ended_without_files(people.owner, ["x", "y"])
    batches.write_failures(batch, [(3, "z")])
    other = _ended_without_files(people.other, ["o"])
    full = _fill(people.owner)
    assert batch_results.write_unwritten("me") and batch_results.write_unwritten("you")
    assert not batch_results.write_unwritten("me"), "later"
    batch.refresh_from_db()
    other.refresh_from_db()
    assert (batch.unwritten, other.unwritten) == (True, False), "nobody waits for another's room"
    files.remove(full)
    Batch.objects.filter(pk=batch.pk).update(lease_until=None)
    assert batch_results.write_unwritten("me")
    batch.refresh_from_db()
    shown = batches.batch_object(batch)
    assert shown["status"] == "expired" and "errors" not in shown and "waiting_for" not in shown
    for name, found in (("output_file_id", ["x", "y"]), ("error_file_id", ["z"])):
        upload = Upload.objects.get(file_id=shown[name], user=people.owner)
        assert files.path_of(upload.storage_name).read_text().split() == found
    assert not batch.lines.exists() and not batch.owner and batch.lease_until is None
    assert not batch_results.write_unwritten("me")


def test_a_worker_that_dies_while_it_writes_leaves_no_second_pair(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = _ended_without_files(people.owner, ["x"])
    batches.write_failures(batch, [(2, "z")])
    write = files.UploadWriter.write

    def die(self: files.UploadWriter, data: bytes) -> None:
        if data.startswith(b"z"):
            raise KeyboardInterrupt
        write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(files.UploadWriter, "write", die)
        with pytest.raises(KeyboardInterrupt):
            batch_results.write_unwritten("me")
    assert not batch_results.write_unwritten("you"), "it is claimed for some minutes"
    Batch.objects.filter(pk=batch.pk).update(lease_until=clock.now())
    assert batch_results.write_unwritten("you")
    assert Upload.objects.filter(user=people.owner, purpose="batch_output").count() == 2


def test_a_cancelled_batch_waits_ten_minutes_for_room(people: People) -> None:
    now = clock.now()
    batch = _batch(people.owner, ["x"], status="cancelling", cancelling_at=now - timedelta(minutes=9))
    full = _fill(people.owner)
    assert batch_results.finish(batch, (), "cancelled", "me") == "room"
    batch.refresh_from_db()
    assert batch.status == "cancelling"
    Batch.objects.filter(pk=batch.pk).update(waits_for="room", cancelling_at=now - timedelta(minutes=11))
    batch.refresh_from_db()
    assert "room" in batches.wait_of(batch)[0]
    assert batch_results.finish(batch, (), "cancelled", "me") is None
    batch.refresh_from_db()
    assert (batch.status, batch.unwritten) == ("cancelled", True)
    files.remove(full)
    assert batch_results.write_unwritten("me")


def test_results_that_nobody_made_room_for_expire_as_their_files_would(people: People) -> None:
    batch = _ended_without_files(people.owner, ["x"], output_keep_seconds=3600)
    Batch.objects.filter(pk=batch.pk).update(expired_at=clock.now() - timedelta(hours=2))
    assert batch_results.write_unwritten("me")
    batch.refresh_from_db()
    assert not batch.unwritten and not batch.lines.exists() and "expired" in batches.error_summary(batch)
    assert "output_file_id" not in batches.batch_object(batch)


def test_what_no_worker_runs_waits_for_its_turn(people: People) -> None:
    batch = _batch(people.owner, [], status="validating", owner="", lease_until=None)
    assert "waiting_for" not in batches.batch_object(batch)
    batch.created_at = clock.now() - timedelta(seconds=20)
    assert batches.batch_object(batch)["waiting_for"] == "turn" and "turn" in batches.wait_of(batch)[0]
    batch.waits_for = "money"
    assert batches.batch_object(batch)["waiting_for"] == "money"
    batch.waits_for, batch.owner = "", "a worker"
    assert "waiting_for" not in batches.batch_object(batch)
