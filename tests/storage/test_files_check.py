"""Differences between the disk and the records of files."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.support.portal import People, stored_for

pytestmark = pytest.mark.shared


def test_what_a_living_worker_still_receives_is_left_to_it(people: People) -> None:
    """Another worker may still be writing the file: only a worker that is gone, or a very old row, ends it."""
    from portal.lib import clock
    from portal.lib.processes import new_owner
    from relay.models import Upload
    from relay.storage import files, files_check

    def half(owner: str) -> Upload:
        upload = files.reserve_upload(people.owner.pk, 10, owner)
        partial = files.partial_path(upload.storage_name)
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(b"01234")
        return upload

    host, _, start, _ = (living := new_owner()).split(":")
    gone, alive, forgotten = half(f"{host}:4999999:{start}:x"), half(living), half(new_owner())
    Upload.objects.filter(pk=forgotten.pk).update(created_at=clock.now() - timedelta(hours=3))
    assert files_check.sweep() == 2
    assert list(Upload.objects.all()) == [alive] and files.partial_path(alive.storage_name).exists()
    assert (
        not files.partial_path(gone.storage_name).exists() and not files.partial_path(forgotten.storage_name).exists()
    )


def test_differences_between_disk_and_records_are_found_and_mended(people: People) -> None:
    from relay.models import Upload
    from relay.storage import files, files_check

    def make(content: bytes) -> Upload:
        sink = files.UploadWriter(files.reserve_upload(people.owner.pk, len(content), "me"))
        sink.write(content)
        return sink.finish("stored", "a", "user_data", "text/plain")

    good, changed, lost, short = make(b"good"), make(b"same"), make(b"lost"), make(b"short")
    files.path_of(changed.storage_name).write_bytes(b"emas")
    files.path_of(lost.storage_name).unlink()
    files.path_of(short.storage_name).write_bytes(b"sh")
    stray = files.path_of("zz" + "0" * 30)
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"?")
    found = {
        entry.name: entry.what
        for entry in files_check.verify_files(contents=True)[0]
        if entry.name in {good.storage_name, changed.storage_name, lost.storage_name, short.storage_name, stray.name}
    }
    assert set(found) == {changed.storage_name, lost.storage_name, short.storage_name, stray.name}
    assert "not on the disk" in found[lost.storage_name] and "not recorded" in found[stray.name]
    files_check.repair()
    assert not stray.exists() and set(Upload.objects.values_list("pk", flat=True)) == {good.pk, changed.pk}
    files.remove(changed)
    files.remove(good)


def test_a_file_that_the_disk_does_not_delete_keeps_no_other(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    from portal.lib import clock
    from relay.models import Upload, UploadSession
    from relay.storage import files, files_check, uploads

    stuck, other = stored_for(people.owner), stored_for(people.owner)
    session = uploads.create_session(people.owner.pk, 3, "a", "user_data", "text/plain", None)
    UploadSession.objects.update(expires_at=clock.now())
    Upload.objects.update(expires_at=clock.now())
    unlink = files.unlink

    def broken(name: str) -> None:
        if name == stuck.storage_name:
            raise OSError(30, "Read-only file system")
        unlink(name)

    monkeypatch.setattr(files, "unlink", broken)
    assert files_check.sweep() == 1
    assert not files.path_of(other.storage_name).exists()
    assert [(row.pk, row.state) for row in Upload.objects.all()] == [(stuck.pk, "deleting")]
    assert UploadSession.objects.get(pk=session.pk).status == "expired"
    assert files.used_bytes(people.owner.pk) == 0 and files_check.repair() == 0
    monkeypatch.setattr(files, "unlink", unlink)
    assert files_check.sweep() == 1 and not Upload.objects.exists()
    assert not files.path_of(stuck.storage_name).exists()


def test_many_files_that_stay_do_not_keep_the_others_waiting(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    from portal.lib import clock
    from relay.models import Upload
    from relay.storage import files, files_check

    stuck = {stored_for(people.owner).storage_name for _ in range(3)}
    good = stored_for(people.owner)
    Upload.objects.update(expires_at=clock.now())
    unlink = files.unlink

    def broken(name: str) -> None:
        if name in stuck:
            raise OSError(5, "Input/output error")
        unlink(name)

    monkeypatch.setattr(files, "unlink", broken)
    monkeypatch.setattr(files_check, "_SWEEP_ROWS", 2)
    monkeypatch.setattr(files_check, "_swept", 0)
    assert [files_check.sweep() for _ in range(2)] == [0, 1]
    assert not Upload.objects.filter(pk=good.pk).exists()
    monkeypatch.setattr(files, "unlink", unlink)
    assert sum(files_check.sweep() for _ in range(3)) == 3


def test_what_fails_in_a_part_of_the_clean_up_keeps_no_other(
    people: People, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from django.db import OperationalError

    from relay.storage import retention

    done: list[str] = []

    def fails() -> None:
        raise OSError(5, "Input/output error")

    def away() -> None:
        raise OperationalError("the database is away")

    monkeypatch.setattr("relay.storage.retention.connection.close", lambda: None)
    monkeypatch.setattr(retention, "_STEPS", (fails, lambda: done.append("files"), lambda: done.append("others")))
    retention.work()
    assert done == ["files", "others"] and "Input/output error" in caplog.text
    monkeypatch.setattr(retention, "_STEPS", (away, lambda: done.append("more")))
    with pytest.raises(OperationalError):
        retention.work()
    monkeypatch.setattr(retention, "_STEPS", (lambda: done.append("more"),))
    retention.work(lambda: True)
    assert done == ["files", "others"]
