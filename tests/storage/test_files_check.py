"""Differences between the disk and the records of files."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.support.portal import People

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
