"""How commands print, and the form in which texts name commands."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest

from portal.cli import output
from portal.cli.errors import Refusal
from portal.installation import command, config_file


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "CLICOLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_colours_are_for_terminals() -> None:
    assert output.shows_colours(Terminal()) and not output.shows_colours(io.StringIO())


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("CLICOLOR", "0"), ("TERM", "dumb")])
def test_who_wants_no_colours_gets_none(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert not output.shows_colours(Terminal())


def test_fields_begin_in_one_column(capsys: pytest.CaptureFixture[str]) -> None:
    output.field("Host", "127.0.0.1")
    output.field("A label that is long", "x")
    output.field("Public URL", "")
    assert capsys.readouterr().out.splitlines() == [
        "  Host:           127.0.0.1",
        "  A label that is long: x",
        "  Public URL:     not set",
    ]


def test_names_of_others_do_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """They set colours, clear the screen, write lines of their own, and type commands otherwise."""
    evil = "a\x1b[2J\x9b31m\nb\r\x07\u202e\x7f naïve 名"
    output.field(evil, evil)
    output.line(evil)
    output.next_steps([evil])
    Refusal(evil).show()
    shown = capsys.readouterr()
    assert all(line.isprintable() for line in (shown.out + shown.err).splitlines())
    assert len(shown.out.splitlines()) == 5 and len(shown.err.splitlines()) == 1
    assert r"a\x1b[2J\x9b31m\nb\r\x07\u202e\x7f naïve 名" in shown.out
    output.as_json({"name": evil})
    text = capsys.readouterr().out
    assert json.loads(text) == {"name": evil} and not any(mark in text for mark in "\x1b\x9b\x7f")
    assert "naïve 名" in text


def test_what_lasts_is_told_on_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(output, "_PATIENCE", 0.0)
    told = threading.Event()

    def tell(text: str, err: bool) -> None:
        print(text, file=sys.stderr if err else sys.stdout)
        told.set()

    monkeypatch.setattr(click, "echo", tell)
    with output.progress("Preparing"):
        assert told.wait(10)
    found = capsys.readouterr()
    assert found.err == "Preparing …\n" and found.out == ""


def test_what_is_quick_is_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("Preparing"):
        pass
    assert capsys.readouterr().err == ""


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `bin` of an environment that has the command, and this program's Python."""
    folder = tmp_path / "a portal" / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "airelays").write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    (folder / "airelays").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in list(os.environ):
        if name.startswith("AIRELAY"):
            monkeypatch.delenv(name)
    return folder


def said_by(line: str, folder: Path) -> str:
    return subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True, timeout=20, check=True).stdout


def test_the_command_is_named_as_it_works_where_it_is_read(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    portal = tmp_path / "a portal"
    monkeypatch.chdir(portal)
    assert command.here("password", "admin") == ".venv/bin/airelays password admin"
    assert said_by(command.here("password", "admin"), portal) == "password|admin|"
    monkeypatch.chdir(elsewhere)
    assert shlex.split(command.here("status"))[0] == str(environment / "airelays")
    assert said_by(command.here("status"), elsewhere) == "status|"
    assert command.anywhere("status") == command.here("status")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "airelays").symlink_to(environment / "airelays")  # as pipx and uv do
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert command.here("status") == command.anywhere("status") == "airelays status"
    (tmp_path / "bin" / "airelays").unlink()
    (tmp_path / "bin" / "airelays").write_text("#!/bin/sh\n")  # of something else
    (tmp_path / "bin" / "airelays").chmod(0o755)
    assert str(environment) in command.here("status")


def test_the_command_names_folders_that_are_not_found_by_themselves(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "a portal")
    assert command.here("status", data_dir=tmp_path / ".airelays") == ".venv/bin/airelays status"
    monkeypatch.setenv("AIRELAYS_CONFIG", str(tmp_path / "my config.toml"))
    line = command.here("status", data_dir=tmp_path / "my data")
    wanted = f"status|--config|{tmp_path / 'my config.toml'}|--data-dir|{tmp_path / 'my data'}|"
    assert said_by(line, tmp_path / "a portal") == wanted


def test_without_the_command_python_runs_it(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (environment / "airelays").unlink()
    (environment / "python").symlink_to(sys._base_executable)  # type: ignore[attr-defined]
    assert command.here("--version").endswith("-m portal.cli --version")


def test_the_configuration_file_is_private_and_keeps_what_is_in_it(tmp_path: Path) -> None:
    file = tmp_path / "new" / "config.toml"
    config_file.write(file, {"host": "127.0.0.1", "port": 9000})
    assert "[server]\nhost" in file.read_text()
    file.write_text("port = 1  # at the top\n\n[security]\n# who\nnetwork_scope = 'any'\n")
    config_file.write(file, {"port": 9001, "network_scope": "private", "data_dir": "/x"})
    assert file.read_text().startswith('port = 9001  # at the top\n\n[security]\n# who\nnetwork_scope = "private"\n')
    assert '[paths]\ndata_dir = "/x"' in file.read_text()


def test_folders_of_the_configuration_are_its_owners_whatever_the_umask(tmp_path: Path) -> None:
    """Who can write the folder above can put another file in its place."""
    file = tmp_path / ".config" / "airelays" / "config.toml"
    before = os.umask(0)
    try:
        config_file.write(file, {"port": 9000})
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (file, *file.parents[:2])] == [0o600, 0o700, 0o700]
