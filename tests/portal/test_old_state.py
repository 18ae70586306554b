"""The files and variables of AIRelays 0.x: what `airelays init` of 0.2.5 and 0.22.0 wrote."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from accounts.models import User
from portal import config
from portal.installation.sources import ConfigError
from portal.serving.first_run import first_run
from relay.gateway.snapshot import load
from relay.models import Token
from relay.models.token import digest_of
from tests.support.server import ROOT

VERSIONS = ("0.2.5", "0.22.0")
FILES = Path(__file__).parent / "airelays"
TOKEN = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"  # 43 characters, as `airelays init` makes them


def home_of(version: str, folder: Path, **changes: str) -> Path:
    """A home folder as `airelays init` left it, with other values for some keys of its file."""
    text = (FILES / f"{version}.toml").read_text(encoding="utf-8").replace("~", str(folder))
    for key, value in changes.items():
        lines = [f"{key} = {value}" if line.startswith(f"{key} =") else line for line in text.splitlines()]
        text = "\n".join(lines)
    (folder / ".config" / "airelays").mkdir(parents=True)
    (folder / ".config" / "airelays" / "config.toml").write_text(text, encoding="utf-8")
    (folder / ".airelays").mkdir()
    (folder / ".airelays" / "relay-token").write_text(f"{TOKEN}\n", encoding="utf-8")
    return folder


def loaded(folder: Path, **env: str) -> config.Config:
    return config.load({}, {"AIRELAYS_CONFIG": str(folder / ".config" / "airelays" / "config.toml"), **env})


@pytest.mark.parametrize("version", VERSIONS)
def test_the_old_file_is_read_and_what_has_no_effect_is_one_line(version: str, tmp_path: Path) -> None:
    found = loaded(home_of(version, tmp_path, port="9001", failed_auth_max_attempts="5"))
    assert (found.host, found.port, found.data_dir) == ("127.0.0.1", 9001, tmp_path / ".airelays")
    assert (found.failed_auth_max_attempts, found.max_upload_bytes) == (5, 33554432)
    (said,) = (str(notice) for notice in found.notices)
    for name in ("[auth]", "[upstream]", "logs_dir", "rate_limit_per_minute", "concurrent_requests_per_ip"):
        assert name in said
    assert "require_bearer_auth" not in said and "network_scope" not in said and "\n" not in said


@pytest.mark.parametrize("version", VERSIONS)
def test_an_open_relay_is_not_silently_a_closed_one(version: str, tmp_path: Path) -> None:
    for said in (
        loaded(home_of(version, tmp_path, require_bearer_auth="false")).notices,
        config.load({}, {"AIRELAYS_CONFIG": "", "AIRELAYS_REQUIRE_BEARER_AUTH": "false"}).notices,
        config.load({}, {"AIRELAYS_CONFIG": "", "AIRELAY_REQUIRE_BEARER_AUTH": "0"}).notices,
    ):
        assert any("does not answer without a token" in str(notice) for notice in said)


def test_x_forwarded_for_is_believed_of_this_machine(tmp_path: Path) -> None:
    folder = home_of("0.2.5", tmp_path, trust_x_forwarded_for="true")
    found = loaded(folder)
    assert found.trusted_proxies == ["127.0.0.0/8", "::1"]
    assert any("AIRELAYS_TRUSTED_PROXIES" in str(notice) for notice in found.notices)
    assert loaded(folder, AIRELAYS_TRUSTED_PROXIES="10.0.0.1").trusted_proxies == ["10.0.0.1"]
    assert loaded(home_of("0.2.5", tmp_path / "b")).trusted_proxies == []


@pytest.mark.parametrize("scope", ["private", "loopback"])
def test_a_network_scope_that_nothing_would_keep_stops_the_program(scope: str, tmp_path: Path) -> None:
    folder = home_of("0.22.0", tmp_path, network_scope=f'"{scope}"')
    assert loaded(folder).host == "127.0.0.1", "nobody else reaches a listener on this machine"
    assert loaded(folder, AIRELAYS_HOST="::1").host == "::1"
    with pytest.raises(ConfigError, match=r"network_scope=.* is not built.*AIRELAYS_HOST=127\.0\.0\.1"):
        loaded(folder, AIRELAYS_HOST="0.0.0.0")
    assert loaded(folder, AIRELAYS_HOST="0.0.0.0", AIRELAYS_NETWORK_SCOPE="any").host == "0.0.0.0"


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("AIRELAYS_SIGNUP_DOMAIN", "AIRELAYS_SIGNUP_DOMAINS"),
        ("AIRELAYS_TRUSTED_PROXY", "AIRELAYS_TRUSTED_PROXIES"),
        ("AIRELAY_PUBLICURL", "AIRELAYS_PUBLIC_URL"),
        ("AIRELAYS_XYZZY", "docs/configure.md"),
        ("AIRELAYS_CLAUDE_BALANCE", "claude_balance"),
    ],
)
def test_a_variable_that_nothing_reads_is_told(variable: str, words: str) -> None:
    (said,) = config.load({}, {"AIRELAYS_CONFIG": "", variable: "x"}).notices
    assert words in str(said)
    assert config.load({}, {"AIRELAYS_CONFIG": "", variable: ""}).notices == []


def test_what_kubernetes_sets_beside_a_service_of_our_name_is_no_setting() -> None:
    env = {
        "AIRELAYS_CONFIG": "",
        "AIRELAYS_PORT": "tcp://10.0.0.7:8080",
        "AIRELAYS_PORT_8080_TCP": "tcp://10.0.0.7:8080",
        "AIRELAYS_PORT_8080_TCP_ADDR": "10.0.0.7",
        "AIRELAYS_SERVICE_HOST": "10.0.0.7",
        "AIRELAYS_SERVICE_PORT_HTTP": "8080",
        "AIRELAYS_API_KEY": "sk-of-a-client-on-this-machine",
    }
    found = config.load({}, env)
    assert found.port == 8080 and found.notices == []


@pytest.mark.parametrize(
    ("env", "token"),
    [
        ({}, TOKEN),
        ({"AIRELAYS_BEARER_TOKEN": TOKEN[::-1]}, TOKEN[::-1]),
        ({"AIRELAYS_BEARER_TOKEN": "too-short"}, ""),
        ({"AIRELAYS_BEARER_TOKEN_FILE": "/nonexistent"}, ""),
    ],
)
def test_clients_keep_their_token(db: None, settings: Any, tmp_path: Path, env: dict[str, str], token: str) -> None:
    User.objects.all().delete()
    settings.CONFIG = loaded(home_of("0.22.0", tmp_path), **env)
    first = first_run()
    assert first is not None
    assert first.token == token or (not token and first.token.startswith("sk-"))
    caller = load.load_caller(digest_of(first.token))
    assert caller is not None and Token.objects.get(pk=caller.token_id).reveal() == first.token


def test_an_old_data_folder_is_taken_over(tmp_path: Path) -> None:
    folder = home_of("0.22.0", tmp_path) / ".airelays"
    (folder / "uploads").mkdir()
    (folder / "uploads" / "file_0123").write_bytes(b"kept")
    with closing(sqlite3.connect(folder / "state.sqlite3")) as database:
        database.execute("CREATE TABLE files (id TEXT PRIMARY KEY, filename TEXT NOT NULL)")
        database.execute("CREATE TABLE conversations (id TEXT PRIMARY KEY, metadata_json TEXT NOT NULL)")
        database.execute("INSERT INTO files VALUES ('file_0123', 'a.txt')")
        database.commit()
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRELAYS_")}
    for command in (["migrate", "--no-input"], ["uploads", "repair"]):
        done = subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env={**env, "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(folder / "state.sqlite3")) as database:
        assert database.execute("SELECT filename FROM files").fetchall() == [("a.txt",)]
        assert database.execute("SELECT count(*) FROM relay_token").fetchone() == (0,)
    assert (folder / "uploads" / "file_0123").read_bytes() == b"kept"
