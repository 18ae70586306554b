"""Files of client apps: written whole, over nothing that changed meanwhile, and put back as they were."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from portal.clients import files
from portal.clients.app import ClientApp, SettingsFile
from portal.clients.target import CannotConnect, OfferedModel, Target

TARGET = Target("http://127.0.0.1:1", "sk-token", (OfferedModel("m"),), "m")


def place(name: str) -> SettingsFile:
    def where(_environment: Mapping[str, str], home: Path) -> Path:
        return home / name

    return SettingsFile(where, lambda text, target: f"{text}token={target.token}\n")


APP = ClientApp("two", "Two files", (place("one"), place("two")), begin="two")


def plan(home: Path) -> list[files.FileChange]:
    return files.planned(APP, TARGET, {}, home)


def test_what_was_changed_after_the_difference_was_shown_is_not_written_over(tmp_path: Path) -> None:
    """As by the app itself, which may be running, or by the same command beside it."""
    (tmp_path / "two").write_text("mine\n")
    first, second = plan(tmp_path), plan(tmp_path)
    files.write(APP, first, tmp_path / "data")
    with pytest.raises(CannotConnect, match="was changed meanwhile"):
        files.write(APP, second, tmp_path / "data")
    assert (tmp_path / "two").read_text() == "mine\ntoken=sk-token\n"
    assert [path.name for path in tmp_path.iterdir() if "before" in path.name] == ["two.before-airelays"]
    assert len(files.undo(APP, tmp_path / "data")) == 2 and (tmp_path / "two").read_text() == "mine\n"
    with pytest.raises(CannotConnect, match="nothing to undo"):
        files.undo(APP, tmp_path / "data")


def test_a_file_comes_back_byte_by_byte_and_with_its_mode(tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.write_bytes(b"a\r\nb")
    one.chmod(0o640)
    files.write(APP, plan(tmp_path), tmp_path / "data")
    assert one.stat().st_mode & 0o777 == 0o600  # it has a token
    files.undo(APP, tmp_path / "data")
    assert one.read_bytes() == b"a\r\nb" and one.stat().st_mode & 0o777 == 0o640
    assert not (tmp_path / "two").exists()


def test_an_undo_that_fails_in_the_middle_goes_on_from_there(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"{name}\n")
    files.write(APP, plan(tmp_path), tmp_path / "data")
    copy = tmp_path / "two.before-airelays"
    copy.rename(tmp_path / "aside")
    with pytest.raises(CannotConnect, match="cannot be put back"):
        files.undo(APP, tmp_path / "data")
    assert (tmp_path / "one").read_text() == "one\n"
    (tmp_path / "aside").rename(copy)
    assert files.undo(APP, tmp_path / "data") == [tmp_path / "two"] and (tmp_path / "two").read_text() == "two\n"


def test_a_file_that_may_not_be_written_is_left_as_it_is(tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.write_text("managed\n")
    one.chmod(0o444)
    with pytest.raises(CannotConnect, match="may not be written"):
        files.write(APP, plan(tmp_path), tmp_path / "data")
    assert one.read_text() == "managed\n" and not (tmp_path / "two").exists() and not (tmp_path / "data").exists()
