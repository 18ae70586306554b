"""Encrypted secrets and their keys."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from portal.lib import crypto


def test_box_opens_with_old_keys_and_not_with_others_or_other_purposes() -> None:
    old, new = crypto.random_key(), crypto.random_key()
    sealed = crypto.SecretBox([old], "a").seal("sk-secret")
    assert "secret" not in sealed
    both = crypto.SecretBox([new, old], "a")
    assert both.open(sealed) == "sk-secret"
    assert crypto.SecretBox([new], "a").open(both.seal("sk-secret")) == "sk-secret", "the first key encrypts"
    for wrong in (crypto.SecretBox([new], "a"), crypto.SecretBox([old], "b")):
        with pytest.raises(crypto.Undecryptable):
            wrong.open(sealed)
    with pytest.raises(crypto.Undecryptable):
        both.open("nonsense")


def test_key_file_is_made_once_with_mode_0600(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "k"
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(crypto.load_or_create(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1 and len(found[0]) >= 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["k"]


def test_a_data_folder_is_its_owners_alone_also_one_of_an_older_version(tmp_path: Path) -> None:
    new, old, mixed = tmp_path / "a" / "new", tmp_path / "old", tmp_path / "mixed"
    for folder in (old, mixed):
        (folder / "uploads" / "ab").mkdir(parents=True)
        for name in ("state.sqlite3", "state.sqlite3-wal", "state.sqlite3-shm", "uploads/ab/file"):
            (folder / name).write_bytes(b"x")
    (mixed / "of-another-program").write_bytes(b"x")
    everything = [*old.rglob("*"), *mixed.rglob("*"), old, mixed]
    for path in everything:
        path.chmod(0o755 if path.is_dir() else 0o644)
    for folder in (new, old, mixed):
        crypto.make_private(folder)
    assert stat.S_IMODE(new.stat().st_mode) == 0o700
    left_open = {path for path in everything if crypto.readable_by_others(path)}
    assert left_open == {mixed, mixed / "of-another-program"}, "a folder that others use as well stays as it is"
    crypto.make_private(mixed, shared=True)
    assert not crypto.readable_by_others(mixed)


def test_files_are_made_for_their_owner_whatever_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        crypto.make_private(tmp_path / "data")
        with open(tmp_path / "data" / "file", "xb", opener=crypto.open_private):
            pass
        (tmp_path / "data" / "state.sqlite3").write_bytes(b"")
        crypto.close_database(tmp_path / "data" / "state.sqlite3")
    finally:
        os.umask(before)
    for path, mode in (("data", 0o700), ("data/file", 0o600), ("data/state.sqlite3", 0o600)):
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == mode
