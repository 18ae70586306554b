"""Files on disk: stored whole or not at all, deleted with their user."""

from __future__ import annotations

from pathlib import Path
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_what_a_full_disk_has_not_taken_is_let_go_of(people: People) -> None:
    """A file is closed by writing what is left of it, which fails once more."""
    from relay.errors import StorageFull
    from relay.models import Upload
    from relay.storage import files

    sink = files.UploadWriter(files.reserve_upload(people.owner.pk, 5, "me"))
    assert sink._file is not None
    sink._file.close()
    sink._file = open("/dev/full", "wb")  # noqa: SIM115  # closed by `close`
    try:
        sink.write(b"01234")
        with pytest.raises(StorageFull):
            sink.finish("stored", "a", "user_data", "text/plain")
    finally:
        sink.close()
    assert Upload.objects.count() == 0 and not files.partial_path(sink.upload.storage_name).exists()


def test_one_person_has_all_of_256_mib_and_several_a_quarter_of_a_gibibyte(db: None, settings: Any) -> None:
    from accounts.models import User
    from relay.storage import files

    def numbers() -> tuple[int, int, int]:
        found = files.storage_limits()
        return found.file >> 20, found.total >> 20, found.user >> 20

    User.objects.all().delete()
    assert numbers() == (32, 256, 256)
    User.objects.create_user("alice")
    assert numbers() == (32, 256, 256)
    settings.CONFIG = settings.CONFIG.model_copy(update={"max_total_upload_bytes": 100 << 20})
    assert numbers() == (32, 100, 100)
    User.objects.create_user("bob")
    assert numbers() == (32, 100, 25)
    settings.CONFIG = settings.CONFIG.model_copy(update={"max_total_upload_bytes": 0})
    assert numbers() == (32, 1024, 256)
    settings.CONFIG = settings.CONFIG.model_copy(update={"max_user_upload_bytes": 7 << 20})
    assert numbers() == (32, 1024, 7)


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


@pytest.mark.parametrize("limit", ["max_user_upload_bytes", "max_total_upload_bytes", "max_user_stored_bytes"])
def test_a_growing_file_gets_what_is_free(people: People, settings: Any, limit: str) -> None:
    from portal.limits import ROW_BYTES
    from relay.errors import RequestTooLarge
    from relay.storage import files

    rows = ROW_BYTES if limit == "max_user_stored_bytes" else 0
    settings.CONFIG = settings.CONFIG.model_copy(update={"max_user_upload_bytes": 1 << 30, limit: 1000 + rows})
    upload = files.reserve_upload(people.owner.pk, 100, "me")
    files.grow(upload, 600, 600)
    files.grow(upload, 700, 1_000_000)
    assert upload.size == 1000
    with pytest.raises(RequestTooLarge):
        files.grow(upload, 1001, 2000)
    files.remove(upload)


def test_one_user_has_a_share_of_the_room_for_all(people: People, settings: Any) -> None:
    from relay.errors import RequestTooLarge
    from relay.storage import files

    settings.CONFIG = settings.CONFIG.model_copy(
        update={"max_user_upload_bytes": 0, "max_total_upload_bytes": 4000, "max_user_stored_bytes": 1 << 30}
    )
    with pytest.raises(RequestTooLarge) as refused:
        files.reserve_upload(people.other.pk, 1001, "me")
    assert "Your files may take up 1,000 bytes" in refused.value.message
    taken = files.reserve_upload(people.other.pk, 1000, "me")
    files.remove(files.reserve_upload(people.owner.pk, 1000, "me"))
    settings.CONFIG = settings.CONFIG.model_copy(update={"max_user_upload_bytes": 3000})
    assert files.free_room(people.owner.pk).least == 3000
    files.remove(taken)
