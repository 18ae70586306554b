"""Uploads in parts that end in another way than they began."""

from __future__ import annotations

from typing import Any

import pytest

from relay.errors import StorageFull
from relay.models import Upload, UploadSession
from relay.storage import files, files_check, uploads
from tests.support.portal import People

pytestmark = pytest.mark.shared


def received(session: UploadSession, content: bytes) -> files.UploadWriter:
    """A part whose bytes have arrived."""
    writer = files.UploadWriter(files.reserve_upload(session.user_id, len(content), "me", session))
    writer.write(content)
    return writer


def begun(people: People, *parts: bytes) -> UploadSession:
    size = sum(map(len, parts))
    session = uploads.create_session(people.owner.pk, size, "a.txt", "user_data", "text/plain", None)
    for part in parts:
        assert uploads.store_part(session, received(session, part)) is not None
    return session


def left() -> list[Any]:
    """What there is of files, in rows and on the disk."""
    return [*Upload.objects.values_list("file_id", "state"), *files_check._on_disk()]


@pytest.mark.parametrize("written", [0, 1, 2])
def test_an_upload_that_is_cancelled_while_its_parts_are_joined(
    people: People, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    session = begun(people, b"abc", b"def")
    count, write = 0, files.UploadWriter.write

    def cancelling(writer: files.UploadWriter, data: bytes) -> None:
        nonlocal count
        write(writer, data)
        count += 1
        if count == written:
            assert uploads.cancel_session(UploadSession.objects.get(pk=session.pk))

    monkeypatch.setattr(files.UploadWriter, "write", cancelling)
    parts = uploads.stored_parts(session)
    if not written:
        assert uploads.cancel_session(UploadSession.objects.get(pk=session.pk))
    assert uploads.join_parts(session, parts, "", "me") is None
    assert UploadSession.objects.get(pk=session.pk).status == "cancelled" and not left()


def test_an_upload_that_two_requests_complete_is_one_file(people: People) -> None:
    session = begun(people, b"abc")
    parts = uploads.stored_parts(session)
    first = uploads.join_parts(session, parts, "", "me")
    assert isinstance(first, Upload)
    assert uploads.join_parts(session, parts, "", "me") is None
    assert left() == [(first.file_id, "stored"), files.path_of(first.storage_name)]


@pytest.mark.parametrize("lost", ["gone", "short", "a folder"])
def test_a_part_that_the_disk_does_not_give(people: People, lost: str) -> None:
    session = begun(people, b"abc", b"def")
    parts = uploads.stored_parts(session)
    path = files.path_of(parts[1].storage_name)
    path.unlink()
    if lost == "short":
        path.write_bytes(b"d")
    elif lost == "a folder":
        path.mkdir()
    for _ in range(2):
        with pytest.raises(StorageFull) as refused:
            uploads.join_parts(session, parts, "", "me")
        assert refused.value.http_status == 503 and refused.value.public_code == "storage_unavailable"
    assert Upload.objects.count() == 2, "nothing is left of the whole"
    if lost == "a folder":
        path.rmdir()
    assert uploads.cancel_session(session) and not left()


def test_a_part_that_arrives_when_its_upload_has_ended_is_not_kept(people: People) -> None:
    session = begun(people, b"abc")
    late = received(session, b"def")
    assert uploads.cancel_session(UploadSession.objects.get(pk=session.pk))
    try:
        assert uploads.store_part(session, late) is None
    finally:
        late.close()
    assert not left()


def test_parts_of_an_upload_that_has_ended_go_with_the_next_sweep(people: People) -> None:
    """As a worker leaves them that is killed while it cancels an upload."""
    session, other = begun(people, b"abc"), begun(people, b"abc")
    UploadSession.objects.filter(pk=session.pk).update(status="cancelled")
    assert files_check.sweep() == 1
    assert [upload.session_id for upload in Upload.objects.all()] == [other.pk]
    assert uploads.cancel_session(other)
