"""Parts of what makes a backup."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from portal.backup import create
from portal.backup.archive import unpack, writing
from portal.backup.create import BackupFailed, backup_to_file
from relay.models import Upload
from relay.models.upload import UploadState
from tests.support.portal import People


def test_every_file_of_settings_has_a_name_of_its_own(tmp_path: Path, settings: Any) -> None:
    """Also of two that are in the data folder: a restore would refuse the whole backup."""
    data, place = tmp_path / "data", tmp_path / "place"
    paths = [data / "config.toml", tmp_path / "env", data / ".env", tmp_path / ".env"]
    for path in (data, place):
        path.mkdir()
    for path in paths:
        path.write_text(f"# {path}\n")
    settings.DATA_DIR, settings.CONFIG = data, SimpleNamespace(files=paths)
    to = io.BytesIO()
    with writing(to, None, tmp_path) as archive:
        archive.add_text("about.json", "{}")
        create._add_settings(archive)
        archive.add_text("summary.json", "{}")
    unpack(io.BufferedReader(io.BytesIO(to.getvalue())), None, place)
    found = {path.name: path.read_text() for path in (place / "settings").iterdir()}
    names = ("config.toml", "working.env", "data.env", "other.env")
    assert found == {name: f"# {path}\n" for name, path in zip(names, paths, strict=True)}


def test_a_backup_that_cannot_be_read_again_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(create, "backup_to_stream", lambda file, *_: file.write(b"something else"))
    with pytest.raises(create.BackupFailed, match="cannot be read again"):
        create.backup_to_file(tmp_path / "one", None, print)
    assert not list(tmp_path.iterdir())


@pytest.mark.shared
def test_however_many_files_are_missing_some_are_asked_for_at_a_time(
    db: None, people: People, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any
) -> None:
    names = [f"{number:032x}" for number in range(5)]
    for name in names[:4]:
        Upload.objects.create(
            file_id=f"file-{name}", user=people.owner, filename="x.txt", purpose="user_data", size=1, sha256="0" * 64,
            content_type="text/plain", storage_name=name, state=UploadState.STORED, owner="",
        )  # fmt: skip
    monkeypatch.setattr(create, "_ROWS", 2)
    assert [one.name for one in create._in_pages()] == names[:4]
    with django_assert_num_queries(3):
        assert create._still_there(names) == set(names[:4])


def test_a_folder_and_a_place_that_is_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(BackupFailed, match="is a folder: name the file"):
        backup_to_file(tmp_path, None, print)
    with pytest.raises(BackupFailed, match=f"There is no folder {tmp_path / 'none'}"):
        backup_to_file(tmp_path / "none" / "a.backup", None, print)
