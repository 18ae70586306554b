"""Differences between the disk and the records of files."""

from __future__ import annotations

import pytest

from tests.support.portal import People

pytestmark = pytest.mark.shared


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
