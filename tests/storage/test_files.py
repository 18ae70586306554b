"""Files on disk: stored whole or not at all, deleted with their user."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.portal import People

pytestmark = pytest.mark.shared


def test_a_disk_that_is_full_stores_nothing(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    from relay.errors import StorageFull
    from relay.models import Upload
    from relay.storage import files

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    sink = files.UploadWriter(files.reserve_upload(people.owner.pk, 10, "me"))
    monkeypatch.setattr("os.fsync", full)
    try:
        sink.write(b"0123456789")
        with pytest.raises(StorageFull):
            sink.finish("stored", "a", "user_data", "text/plain")
    finally:
        sink.close()
    assert (
        Upload.objects.count() == 0
        and not files.partial_path(sink.upload.storage_name).exists()
        and not files.path_of(sink.upload.storage_name).exists()
    )


def test_the_files_of_a_user_go_with_the_user(people: People, django_capture_on_commit_callbacks: Any) -> None:
    from relay.models import Upload
    from relay.storage import files

    sink = files.UploadWriter(files.reserve_upload(people.other.pk, 3, "me"))
    sink.write(b"abc")
    path = files.path_of(sink.finish("stored", "a", "user_data", "text/plain").storage_name)
    assert path.exists()
    with django_capture_on_commit_callbacks(execute=True):
        Upload.objects.filter(user=people.other).delete()  # as Django does when it deletes what hangs on a user
    assert not path.exists()
