"""What the page says of commands, of files on the disk, and of what AIRelays 0.x has left."""

from __future__ import annotations

import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from portal.installation.sign_ins import find_sign_ins, user_name
from tests.portal.airelays import token_of
from tests.portal.airelays.personal import Home, InDatabase, Relay, empty_home, home_with_tables, keychain_of, turn_on
from tests.portal.faq import shows
from tests.support import environment
from tests.support.portal import Portal
from tests.support.server import Server

MIB = 1 << 20


def upload(relay: Any, token: str, content: bytes) -> httpx.Response:
    form = {"files": {"file": ("a.txt", content, "text/plain")}, "data": {"purpose": "user_data"}}
    answer: httpx.Response = relay.request("POST", token, "/v1/files", **form)
    return answer


def old_files(home: Home) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(home.data / "state.sqlite3")) as database:
        return database.execute("SELECT * FROM files ORDER BY id").fetchall()


@pytest.fixture(scope="module")
def opened(started: Relay) -> Iterator[Server]:
    """The same relay, served without a token, and with other settings."""
    env = {"AIRELAYS_PLAN_OUTPUT_LIMITS": "drop", "AIRELAYS_MAX_UPLOAD_BYTES": "1024"}
    with started.home.serving("--no-auth", **env) as server:
        yield server


@shows("Yes. `~/.config/airelay` and `~/.airelay` are used when there is no `~/.config/airelays` or `~/.airelays`.")
def test_folders_of_older_versions_are_used_unless_there_are_newer_ones(tmp_path: Path) -> None:
    home = empty_home(tmp_path / "home")
    (home.path / ".config" / "airelay").mkdir(parents=True)
    (home.path / ".config" / "airelay" / "config.toml").write_text("port = 9000\n")
    (home.path / ".airelay").mkdir()
    for folder, config in ((".airelay", "airelay"), (".airelays", "airelays")):
        status, init = home.run("status"), home.run("init", "--port", "9001")
        assert f"{home.path / folder} is not set up" in status.stderr
        assert f"{home.path / '.config' / config / 'config.toml'} already exists" in init.stderr
        home.data.mkdir(exist_ok=True)
        (home.path / ".config" / "airelays").mkdir(exist_ok=True)
        (home.path / ".config" / "airelays" / "config.toml").write_text("port = 9000\n")


@shows(
    "A sign-in that an older version kept in the keychain, under `AIRelays Auth` or `AIRelay Auth`, is taken over "
    "where the package `keyring` is installed.",
    "The relay token, uploaded files and conversations of AIRelays 0.x are taken over too, and the originals stay as "
    "they are.",
)
def test_what_an_older_version_left_is_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = home_with_tables("0.2.5", tmp_path / "home")
    secret = (home.data / "auth.json").read_text()
    (home.data / "auth.json").unlink()
    user, keychain = user_name(home.data), tmp_path / "keychain"
    before, contents = old_files(home), {path.name: path.read_bytes() for path in (home.data / "uploads").iterdir()}
    with home.serving(**keychain_of(keychain, "AIRelay Auth", user, secret)) as server:
        (found,) = home.json("accounts")["sign_ins"]
        assert (found["email"], found["user"]) == ("owner@example.org", "admin")
        token = token_of("0.2.5")
        listed = server.get(token, "/v1/files").json()["data"]
        assert {one["id"] for one in listed} == set(contents)
        for one in listed:
            assert server.get(token, f"/v1/files/{one['id']}/content").content == contents[one["id"]]
        conversation = server.query("SELECT id FROM conversations")[0][0]
        assert server.get(token, f"/v1/conversations/{conversation}").status_code == 200
    assert {name: (home.data / "uploads" / name).read_bytes() for name in contents} == contents
    assert (home.data / "relay-token").read_text().strip() == token and old_files(home) == before
    monkeypatch.syspath_prepend(keychain)
    for service in ("AIRelay Auth", "AIRelays Auth"):
        keychain_of(keychain, service, user, secret)
        monkeypatch.delitem(sys.modules, "keyring", raising=False)
        assert [entry.source for entry in find_sign_ins(home.data)] == [f"the keychain's “{service}”"]


@shows("`airelays init` makes it, `airelays token show` shows it, and `airelays token rotate` replaces it.")
def test_the_token_is_made_shown_and_replaced(relay: Relay) -> None:
    assert relay.token in relay.home("token", "show")
    new = relay.home.json("token", "rotate")["relay_token"]
    old, relay.token = relay.token, new
    assert relay.server.get(old, "/v1/models").status_code == 401
    assert relay.server.get(new, "/v1/models").status_code == 200


@shows(
    "Yes. `airelays init`, `status`, `logout`, `token show` and `token rotate` accept `--json`, and so do most others."
)
def test_commands_print_json(relay: Relay) -> None:
    for words in ("init", "status", "token show", "token list", "accounts", "models", "usage"):
        assert isinstance(relay.home.json(*words.split()), dict)
    for words in ("logout", "token rotate", "token create", "doctor", "login", "connect"):
        assert "--json" in relay.home(*words.split(), "--help")


@shows("In `uploads/` of the data directory, `~/.airelays/uploads/` by default, indexed in `state.sqlite3` beside it.")
@pytest.mark.skipif(bool(environment.DATABASE_URL), reason="another database than the default one")
def test_files_are_in_the_data_folder(relay: Relay) -> None:
    found = upload(relay.server, relay.token, b"hello files").json()
    rows = relay.server.query(f"SELECT storage_name FROM relay_upload WHERE file_id = '{found['id']}'")
    folder = relay.home.path / ".airelays"
    (path,) = (path for path in (folder / "uploads").rglob("*") if path.name == rows[0][0])
    assert path.read_bytes() == b"hello files" and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Path(relay.server.database) == folder / "state.sqlite3"


@shows(
    "A file has at most 32 MiB, and the files of a relay with one user at most 256 MiB together, unless settings say "
    "otherwise."
)
def test_files_have_limits(relay: Relay, opened: Server, own: Portal) -> None:
    from accounts.models import User
    from relay.models import Upload
    from relay.storage import files

    answer = upload(relay.server, relay.token, bytes(32 * MIB + 1))
    assert answer.status_code == 413, answer.text
    owner = User.objects.get()
    held = files.reserve_upload(owner.pk, 256 * MIB - files.used_bytes(owner.pk) - 1024, "test")
    try:
        assert upload(relay.server, relay.token, bytes(MIB)).status_code == 413
    finally:
        Upload.objects.filter(pk=held.pk).delete()
    assert upload(relay.server, relay.token, bytes(MIB)).status_code == 200
    assert upload(opened, relay.token, bytes(2000)).status_code == 413, "its setting is 1024"


@shows("Yes, with `airelays init --no-auth` or `airelays serve --no-auth`, or `AIRELAYS_REQUIRE_BEARER_AUTH=false`.")
def test_the_relay_can_be_opened(relay: Relay, opened: Server, tmp_path: Path) -> None:
    home = empty_home(tmp_path / "home")
    home("init", "--no-auth")
    assert "require_bearer_auth = false" in (home.path / ".config" / "airelays" / "config.toml").read_text()
    status = relay.home.json("status", AIRELAYS_REQUIRE_BEARER_AUTH="false")
    assert status["client"]["requires_bearer_auth"] is False
    for headers in ({}, {"authorization": "Bearer anything"}):
        answer = httpx.get(f"{opened.v1}/models", headers=headers, trust_env=False, timeout=30)
        assert answer.status_code == 200, answer.text


@shows("Such an open relay listens on loopback only, unless you say that it may be reached from elsewhere.")
def test_an_open_relay_is_not_reached_from_elsewhere(relay: Relay) -> None:
    done = relay.home.run("serve", "--no-auth", "--host", "0.0.0.0")
    assert done.returncode == 1 and "AIRELAYS_OPEN_RELAY_ON_NETWORK" in done.stderr


@shows("It still needs an upstream: `airelays login`, or a channel.")
def test_an_open_relay_needs_an_upstream(relay: Relay, opened: Server, servers_database: InDatabase) -> None:
    def ask_for(model: str) -> httpx.Response:
        body = {"model": model, "input": "Hi"}
        opened.catch_up()
        return httpx.post(f"{opened.v1}/responses", json=body, trust_env=False, timeout=30)

    assert ask_for("gpt-5.5").status_code == 200
    assert ask_for("demo").status_code == 200
    relay.home("logout")
    try:
        answer = ask_for("gpt-5.5")
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "upstream_auth_missing"
    finally:
        relay.home.login(relay.chatgpt)
        turn_on(relay.home, servers_database)


@shows("`PLAN_OUTPUT_LIMITS` has them left out, or sent on, instead.")
def test_a_setting_has_limits_left_out_or_sent_on(relay: Relay, opened: Server) -> None:
    limits = {
        "/v1/responses": {"input": "Hi", "max_output_tokens": 50},
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 50},
        "/v1/completions": {"prompt": "Hi", "max_tokens": 50},
    }
    for path, body in limits.items():
        answer = opened.post(relay.token, {"model": "gpt-5.5", **body}, path)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-airelays-ignored-parameters"] in body
        assert "max_output_tokens" not in relay.sent
    with relay.home.serving(AIRELAYS_PLAN_OUTPUT_LIMITS="forward") as server:
        for path, body in limits.items():
            server.post(relay.token, {"model": "gpt-5.5", **body}, path)
            assert relay.sent["max_output_tokens"] == 50, "which OpenAI may refuse"
