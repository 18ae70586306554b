"""The first start of an empty folder, the second start, and the refusals."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from portal.serving.banner import banner
from portal.serving.first_run import FirstRun
from tests.support.server import ROOT, Server, free_port, serving


@contextmanager
def started(folder: Path, log: Path) -> Iterator[tuple[Server, str]]:
    port = free_port()
    command = [sys.executable, "manage.py", "start", "--port", str(port)]
    env = {"AIRELAYS_DATA_DIR": str(folder)}
    with serving(log, env=env, port=port, command=command) as server:
        yield server, log.read_text()


def test_first_start_sets_everything_up_and_the_second_repeats_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with started(folder, tmp_path / "log1") as (server, text):
        for line in (f"{server.url}/admin/", f"Portal    {server.url}/", f"Base URL  {server.v1}"):
            assert line in text
        password = re.search(r"Sign in as admin with the password (\S+)", text)
        token = re.search(r"Token +(sk-\w{48})", text)
        assert password and token
        curl = text[text.index("curl -N") : text.index("Stop with")].strip()
        answer = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, timeout=30)
        assert answer.stdout.count("data:") > 20 and answer.stdout.endswith("data: [DONE]\n\n"), answer.stderr
        assert "Hello!" in "".join(re.findall(r'"content":"([^"]*)"', answer.stdout))
        again = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, timeout=30)
        words = [re.findall(r'"content":"([^"]*)"', run.stdout) for run in (answer, again)]
        assert words[0] == words[1], "the demo answers the same to the same question"
        with httpx.Client(base_url=server.url, trust_env=False, follow_redirects=True, timeout=20) as client:
            csrf = re.search(r'csrfmiddlewaretoken" value="([^"]+)', client.get("/accounts/login/").text)
            assert csrf
            page = client.post(
                "/accounts/login/", data={"login": "admin", "password": password[1], "csrfmiddlewaretoken": csrf[1]}
            )
            assert "Overview" in page.text
            assert client.get("/admin/").status_code == 200
            style = client.get("/static/portal/portal.css")
            assert style.status_code == 200 and "text/css" in style.headers["content-type"]
    for name in ("secret_key", "encryption_keys", "token_key"):
        assert stat.S_IMODE((folder / "keys" / name).stat().st_mode) == 0o600
    assert not [path for path in (folder, *folder.rglob("*")) if stat.S_IMODE(path.stat().st_mode) & 0o077]
    with closing(sqlite3.connect(folder / "state.sqlite3")) as database:
        before = database.execute("SELECT count(*), max(digest) FROM relay_token").fetchone()
        dump = (folder / "state.sqlite3").read_bytes()
    assert token[1].encode() not in dump and password[1].encode() not in dump
    with started(folder, tmp_path / "log2") as (server, text):
        assert "password" not in text and token[1] not in text, "no secret goes into a log file after the first run"
        assert (
            httpx.get(
                f"{server.v1}/models", headers={"authorization": f"Bearer {token[1]}"}, trust_env=False, timeout=60
            ).status_code
            == 200
        )
        with closing(sqlite3.connect(folder / "state.sqlite3")) as database:
            assert database.execute("SELECT count(*), max(digest) FROM relay_token").fetchone() == before


def run_start(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", "start", *arguments],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_busy_port_is_one_sentence_and_nothing_is_made(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        done = run_start({"AIRELAYS_DATA_DIR": str(tmp_path / "data")}, "--port", port)
        assert done.returncode != 0
        assert (
            f"port {port} of 127.0.0.1 is in use by another program" in done.stderr
            and len(done.stderr.strip().splitlines()) == 1
        )
        assert not (tmp_path / "data" / "state.sqlite3").exists()
        for bootstrap_env in ({"AIRELAYS_PORT": port, "AIRELAYS_DATA_DIR": str(tmp_path / "data")},):
            first = subprocess.run(
                [sys.executable, "portal/serving/bootstrap.py", "run"],
                cwd=ROOT,
                env={**os.environ, **bootstrap_env},
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert (
                first.returncode == 1
                and "Stop the program that uses it" in first.stderr
                and len(first.stderr.strip().splitlines()) == 1
            )


@pytest.mark.parametrize("folder", ["/dev/null/data", "/dev/null/a/b"])
def test_unwritable_folder_is_one_sentence(folder: str) -> None:
    for command in (["manage.py", "start", "--port", str(free_port())], ["portal/serving/bootstrap.py", "run"]):
        env = {**os.environ, "AIRELAYS_DATA_DIR": folder, "AIRELAYS_PORT": str(free_port())}
        done = subprocess.run([sys.executable, *command], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode != 0 and len(done.stderr.strip().splitlines()) == 1
        assert "AIRELAYS_DATA_DIR" in done.stderr and "/dev/null" in done.stderr


@pytest.mark.parametrize("value", ["eighty", "0", "99999"])
def test_port_that_is_none_is_one_sentence(value: str) -> None:
    for command, status in ((["manage.py", "check"], 2), (["portal/serving/bootstrap.py", "run"], 1)):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env={**os.environ, "AIRELAYS_PORT": value},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == status and "PORT" in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["serve", "start"])
def test_port_flag_that_is_none_is_one_sentence(tmp_path: Path, command: str) -> None:
    env = {**os.environ, "AIRELAYS_DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "manage.py", command, "--port", "99999"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0 and "99999 is not a port" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_serve_refuses_a_database_without_migrations(tmp_path: Path) -> None:
    env = {**os.environ, "AIRELAYS_DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "manage.py", "serve", "--port", str(free_port())],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0 and f"manage migrate --data-dir {tmp_path}" in done.stderr


def test_the_printed_command_for_another_password_works_as_printed(
    db: None, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[object] = []
    folder = tmp_path / "my data"
    settings.CONFIG = settings.CONFIG.model_copy(update={"data_dir": folder})
    monkeypatch.chdir(tmp_path)
    banner("127.0.0.1", 8080, FirstRun("admin", "a password", "sk-token"), False, said.append)
    (line,) = (str(line) for line in said if "password admin" in str(line))
    assert shlex.split(line)[-4:] == ["password", "admin", "--data-dir", str(folder)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRELAYS_")}
    done = subprocess.run(["bash", "-c", line], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith(f"The data folder {folder} is not set up.")


def test_the_systems_python_goes_on_in_the_environment_beside(tmp_path: Path) -> None:
    """As people type it after `make run`: `python3 manage.py changepassword admin`."""
    shutil.copy(ROOT / "manage.py", tmp_path)
    command = [str(Path(sys.base_prefix) / "bin" / "python3"), str(tmp_path / "manage.py"), "version"]
    env = {"PATH": os.environ["PATH"]}
    missing = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert missing.returncode == 1 and "make run" in missing.stderr and len(missing.stderr.splitlines()) == 1
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "in the environment: $@"\n')
    python.chmod(0o700)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"in the environment: {tmp_path / 'manage.py'} version\n"


def test_bootstrap_without_a_home_folder_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AIRELAYS_DATA_DIR")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # what it does without HOME and an entry of the user
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / "portal" / "serving" / "bootstrap.py"))["check_data_dir"]()
    assert "AIRELAYS_DATA_DIR" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["ledger", "verify"], ["migrate"]])
def test_a_database_that_is_away_is_one_sentence(command: list[str], tmp_path: Path) -> None:
    words = [str(free_port()) if word == "0" else word for word in command]
    env = {**os.environ, "AIRELAYS_DATABASE_URL": "postgresql://nobody:secret@127.0.0.1:1/none", "AIRELAYS_CONFIG": ""}
    done = subprocess.run(
        [sys.executable, "manage.py", *words], cwd=ROOT, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and "AIRELAYS_DATABASE_URL" in done.stderr and "Traceback" not in done.stderr
    assert "secret" not in done.stderr


def test_serve_says_where_it_serves_and_what_check_would(tmp_path: Path) -> None:
    env = {"AIRELAYS_PUBLIC_URL": "https://ai.example.org", "AIRELAYS_CLAUDE_BIN": "claude"}
    with serving(tmp_path / "log", env=env) as server:
        text = (tmp_path / "log").read_text()
    assert f"serves https://ai.example.org (listening on 127.0.0.1:{server.port})" in text
    assert len([line for line in text.splitlines() if "AIRELAYS_TRUSTED_PROXIES" in line]) == 1
    assert len([line for line in text.splitlines() if "claude_bin" in line]) == 1
