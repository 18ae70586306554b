"""A home folder that AIRelays 0.x left: the portal starts on it, serves its files and conversations, and keeps it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from accounts.models import User
from portal.installation import sign_ins
from portal.installation.sign_ins import find_sign_ins, user_name
from portal.lib import clock
from portal.serving.first_run import take_over
from relay.models import Adoption, Conversation, Upload
from relay.storage import files, files_check
from relay.storage.adoption import adopt as adoption
from relay.storage.adoption.former import FormerFile, read_former
from tests.portal.airelays import VERSIONS, home_of, token_of
from tests.portal.airelays.personal import home_with_tables
from tests.support.server import ROOT, Server, free_port, serving


def environment(home: Path) -> dict[str, str]:
    """Of a program that finds the home folder itself."""
    env = {name: "" for name in os.environ if name.startswith("AIRELAYS_")}
    return {**env, "HOME": str(home), "AIRELAYS_JOBS": "false", "AIRELAYS_DATA_DIR": "", "AIRELAYS_CONFIG": ""}


@contextmanager
def started(home: Path, log: Path, name: str = "airelays") -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "manage.py", "start", "--port", str(port)]
    env = environment(home)
    with serving(log, env={**env, "AIRELAYS_DATABASE_URL": ""}, port=port, command=command) as server:
        yield replace(server, database=str(home / f".{name}" / "state.sqlite3"))


def get(server: Server, token: str, path: str, method: str = "GET") -> httpx.Response:
    return httpx.request(
        method, f"{server.v1}{path}", headers={"authorization": f"Bearer {token}"}, trust_env=False, timeout=30
    )


def old_tables(folder: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "state.sqlite3")) as database:
        rows: list[tuple[Any, ...]] = []
        for table in ("files", "conversations"):
            rows += database.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()
        return rows


@pytest.mark.parametrize(("version", "name"), [("0.2.5", "airelay"), ("0.22.0", "airelays")])
def test_the_portal_starts_on_it_and_what_was_there_is_served(version: str, name: str, tmp_path: Path) -> None:
    home = home_of(version, tmp_path / "home", name)
    folder, token = home / f".{name}", token_of(version)
    before = old_tables(folder)
    contents = {path.name: path.read_bytes() for path in (folder / "uploads").iterdir()}
    with started(home, tmp_path / "log", name) as server:
        assert "Taken over from AIRelays 0.x for admin: 2 files, 2 conversations." in (tmp_path / "log").read_text()
        assert f"the sign-in at ChatGPT in {folder / 'auth.json'}, which is off" in (tmp_path / "log").read_text()
        assert server.query("SELECT state, enabled_at FROM relay_chatgptaccount") == [("signed_in", None)]
        listed = get(server, token, "/files").json()["data"]
        assert {entry["filename"] for entry in listed} == {"hello.txt", "nächste Woche.csv"}
        for entry in listed:
            content = get(server, token, f"/files/{entry['id']}/content")
            assert content.content == contents[entry["id"]] and entry["bytes"] == len(content.content)
            assert entry["created_at"] > 1_700_000_000 and entry["purpose"] == "user_data"
        found = [row for row in before if row[0].startswith("conv_") and "greeting" in row[1]]
        conversation = get(server, token, f"/conversations/{found[0][0]}").json()
        assert conversation["metadata"] == {"topic": "greeting"} and conversation["created_at"] == found[0][4]
        items = get(server, token, f"/conversations/{found[0][0]}/items?order=asc").json()["data"]
        assert len(items) == len(json.loads(found[0][2])) and all(item["id"] for item in items)
        # The quota of one person: 256 MiB for them alone, 32 MiB a file.
        assert server.query("SELECT count(*) FROM accounts_user") == [(1,)]
        second = subprocess.run(
            [sys.executable, "manage.py", "serve", "--port", str(free_port())],
            cwd=ROOT,
            env={**os.environ, **environment(home), "AIRELAYS_DATABASE_URL": ""},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert second.returncode == 75, second.stderr
        assert f"already running with the data directory {folder} (pid {server.process.pid})" in second.stderr
        # A file that is deleted is gone, the bytes of 0.x too, and stays away.
        gone = listed[0]["id"]
        assert get(server, token, f"/files/{gone}", "DELETE").json()["deleted"] is True
        assert not (folder / "uploads" / gone).exists()
        server.kill()
    with started(home, tmp_path / "log2", name) as server:
        assert "Taken over" not in (tmp_path / "log2").read_text()
        assert [entry["id"] for entry in get(server, token, "/files").json()["data"]] == [listed[1]["id"]]
    assert old_tables(folder) == before, "the tables of 0.x are as they were"
    assert json.loads((folder / "auth.json").read_text())["tokens"]["refresh_token"] == "made-up-refresh-token"
    assert (folder / "relay-token").read_text().strip() == token


@pytest.fixture
def owner(people: Any) -> User:
    found: User = people.owner
    return found


@pytest.fixture
def folder(tmp_path: Path, settings: Any) -> Path:
    settings.DATA_DIR = home_of("0.22.0", tmp_path) / ".airelays"
    return tmp_path / ".airelays"


def test_what_was_taken_over_once_is_not_taken_over_again(owner: User, folder: Path) -> None:
    assert (adoption.adopt(folder, owner).files, Upload.objects.count()) == (2, 2)
    Upload.objects.all().delete()
    Conversation.objects.all().delete()
    again = adoption.adopt(folder, owner)
    assert (again.files, again.conversations, again.lost) == (0, 0, [])
    assert Upload.objects.count() == 0


def test_something_else_is_taken_over_once(db: None) -> None:
    """A sign-in that its owner has ended here does not come back at the next start; a new one is another."""
    answers = [False, True, True]
    assert [adoption.adopt_once("sign-in:1", lambda: answers.pop(0)) for _ in range(4)] == [False, True, False, False]
    assert answers == [True]
    one, other = (sign_ins.SignIn({"tokens": {"refresh_token": token}}, "") for token in ("a" * 40, "b" * 40))
    assert one.fingerprint != other.fingerprint and "aaaa" not in one.fingerprint


def test_a_portal_that_is_killed_meanwhile_goes_on_where_it_was(
    owner: User, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a link was made, and before its row; then after the first row, which is written with the second."""
    calls: list[str] = []

    def killed(source: str) -> None:
        calls.append(source)
        if len(calls) in {1, 3}:
            raise KeyboardInterrupt
        Adoption.objects.create(source=source)

    monkeypatch.setattr(adoption, "_once", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            adoption.adopt(folder, owner)
    done = adoption.adopt(folder, owner)
    assert (done.files, done.conversations, done.lost) == (2, 2, [])
    found, count, size = files_check.verify_files(contents=True)
    assert [entry.what for entry in found] == [] and (count, size) == (2, 39)


def test_a_disk_without_second_names_gets_copies(owner: User, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refused)
    assert adoption.adopt(folder, owner).files == 2
    for upload in Upload.objects.all():
        path = files.path_of(upload.storage_name)
        assert path.stat().st_nlink == 1 and path.stat().st_mode & 0o777 == 0o600
        assert path.read_bytes() == (folder / "uploads" / upload.file_id).read_bytes()


def test_a_folder_that_was_moved_still_has_its_files(owner: User, tmp_path: Path, settings: Any) -> None:
    home = home_of("0.2.5", tmp_path / "old")
    moved = (home / ".airelays").rename(tmp_path / "new")
    settings.DATA_DIR = moved
    assert adoption.adopt(moved, owner).files == 2


def test_what_cannot_be_taken_over_is_told_and_the_rest_is(owner: User, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "state.sqlite3")) as database:
        ids = [row[0] for row in database.execute("SELECT id FROM files WHERE deleted_at IS NULL ORDER BY id")]
        database.execute("UPDATE conversations SET seed_items_json = '{broken' WHERE metadata_json = '{}'")
        database.commit()
    (folder / "uploads" / ids[0]).unlink()
    (folder / "uploads" / ids[1]).write_bytes(b"changed")
    done = adoption.adopt(folder, owner)
    assert (done.files, done.conversations, len(done.lost)) == (1, 1, 3)
    assert all("\n" not in line for line in done.lost)
    assert Upload.objects.get().size == 7


@pytest.mark.parametrize("kind", ["elsewhere", "link", "pipe", "above"])
def test_only_files_in_the_folder_of_uploads_are_taken_over(
    owner: User, folder: Path, tmp_path: Path, kind: str
) -> None:
    """A row, or a link, that names another file of the machine does not make it one that clients can fetch."""
    secret = tmp_path / "secret"
    secret.write_text("of somebody else")
    with closing(sqlite3.connect(folder / "state.sqlite3")) as database:
        ids = [row[0] for row in database.execute("SELECT id FROM files WHERE deleted_at IS NULL ORDER BY id")]
        path = {"elsewhere": str(secret), "above": str(folder / "uploads" / ".." / "auth.json")}.get(kind, ids[0])
        database.execute("UPDATE files SET storage_path = ? WHERE id = ?", (path, ids[0]))
        database.commit()
    upload = folder / "uploads" / ids[0]
    upload.unlink()
    if kind == "link":
        upload.symlink_to(secret)
    elif kind == "pipe":
        os.mkfifo(upload)
    done = adoption.adopt(folder, owner)
    assert (done.files, done.lost) == (1, [f"the file {ids[0]} is not taken over: it is not in the folder of uploads"])


def test_a_row_that_is_damaged_is_not_all_of_them(owner: User, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "state.sqlite3")) as database:
        database.execute(
            "UPDATE files SET filename = CAST(X'ff006e1b' AS TEXT), content_type = CAST(X'612f00' AS TEXT),"
            " created_at = 99999999999999999 WHERE rowid = (SELECT min(rowid) FROM files WHERE deleted_at IS NULL)"
        )
        database.commit()
    done = adoption.adopt(folder, owner)
    assert (done.files, done.lost) == (2, [])
    assert all(upload.filename.isprintable() and "\x00" not in upload.content_type for upload in Upload.objects.all())


@pytest.mark.parametrize("text", [b"", b"not a database, but as long as one could be" * 30])
def test_a_file_that_is_no_database_is_told(text: bytes, owner: User, tmp_path: Path) -> None:
    (tmp_path / "state.sqlite3").write_bytes(text)
    done = adoption.adopt(tmp_path, owner)
    assert len(done.lost) == bool(text) and not done.files
    assert adoption.adopt(tmp_path / "missing", owner).lost == []


# -- sign-ins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_the_sign_in_is_found_and_left_where_it_is(version: str, tmp_path: Path) -> None:
    folder = home_of(version, tmp_path) / ".airelays"
    before = (folder / "auth.json").read_bytes()
    (found,) = find_sign_ins(folder, keychain=False)
    assert found.auth["tokens"]["refresh_token"] == "made-up-refresh-token"
    assert found.source == str(folder / "auth.json") and (folder / "auth.json").read_bytes() == before


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"tokens":' * 50_000, '{"tokens":{"refresh_token":"\\ud800"}}', "", "[]", None],
    ids=range(6),
)
def test_what_is_no_sign_in_keeps_no_portal_from_starting(tmp_path: Path, text: str | None) -> None:
    if text is None:
        os.mkfifo(tmp_path / "auth.json")
    else:
        (tmp_path / "auth.json").write_text(text)
    found = find_sign_ins(tmp_path, keychain=False)
    assert [len(one.fingerprint) for one in found] == [32] * len(found)
    assert len(found) == ("ud800" in (text or ""))


def test_several_accounts_come_in_their_order_and_each_once(tmp_path: Path) -> None:
    def account(name: str, number: str, at: str = "") -> None:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        auth = {"tokens": {"refresh_token": name, "account_id": number}, "last_refresh": at}
        (folder / "auth.json").write_text(json.dumps(auth))

    account(".", "1", "2026-01-01T00:00:00+00:00")
    account("accounts/b", "2")
    account("accounts/a", "3")
    account("accounts/newer", "1", "2026-02-01T00:00:00Z")
    (tmp_path / "accounts" / "manifest.json").write_text('{"order": ["b", "gone", "a"]}')
    (tmp_path / "accounts" / "broken").mkdir()
    (tmp_path / "accounts" / "broken" / "auth.json").write_text("{")
    found = [entry.auth["tokens"]["refresh_token"] for entry in find_sign_ins(tmp_path, keychain=False)]
    assert found == ["accounts/newer", "accounts/b", "accounts/a"]
    assert find_sign_ins(tmp_path / "missing", keychain=False) == []


def test_conversations_are_kept_from_then_on(owner: User, folder: Path) -> None:
    adoption.adopt(folder, owner)
    assert Conversation.objects.filter(expires_at__gt=clock.now()).count() == 2


class Keychain:
    """The system's keychain as the library `keyring` shows it."""

    def __init__(self, entries: dict[tuple[str, str], str], hangs: threading.Event | None = None) -> None:
        self.entries, self.hangs, self.asked = entries, hangs, 0

    def get_password(self, service: str, user: str) -> str | None:
        self.asked += 1
        if self.hangs is not None:
            self.hangs.wait(60)
            raise RuntimeError("locked")
        return self.entries.get((service, user))


def auth_of(token: str, account: str, at: str) -> str:
    return json.dumps({"tokens": {"refresh_token": token, "account_id": account}, "last_refresh": at})


def test_the_keychain_has_older_sign_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    user = user_name(link)
    assert user == f"cli|{hashlib.sha256(str(tmp_path.resolve()).encode()).hexdigest()[:16]}"
    old, new = auth_of("older", "1", "2026-01-01T00:00:00+00:00"), auth_of("newer", "1", "2026-01-02T00:00:00+00:00")
    other = auth_of("another", "2", "2026-01-02T00:00:00+00:00")
    keychain = Keychain({("AIRelays Auth", user): new, ("AIRelay Auth", user): old})
    monkeypatch.setitem(sys.modules, "keyring", keychain)
    (found,) = find_sign_ins(link)
    assert found.auth["tokens"]["refresh_token"] == "newer" and "AIRelays Auth" in found.source
    keychain.entries.pop(("AIRelays Auth", user))
    (tmp_path / "auth.json").write_text(other)
    assert [entry.auth["tokens"]["refresh_token"] for entry in find_sign_ins(link)] == ["another", "older"]
    keychain.entries[("AIRelays Auth", user)] = "not JSON"
    assert len(find_sign_ins(link)) == 2 and len(find_sign_ins(link, keychain=False)) == 1


def test_a_keychain_that_is_locked_or_missing_keeps_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sign_ins, "_PATIENCE", 0.01)
    go = threading.Event()
    monkeypatch.setitem(sys.modules, "keyring", Keychain({}, go))
    assert find_sign_ins(tmp_path) == [] and "the keychain does not answer" in caplog.text
    go.set()
    monkeypatch.setitem(sys.modules, "keyring", None)
    assert find_sign_ins(tmp_path) == []


def test_init_takes_over_what_the_first_start_would(tmp_path: Path) -> None:
    """So that a person who asks `status` then sees their files and their sign-in."""
    home = home_with_tables("0.2.5", tmp_path / "home")
    made = home.json("init")
    assert len(made["taken_over"]) == 2 and "files" in made["taken_over"][0] and "auth.json" in made["taken_over"][1]
    assert made["relay_token"] == token_of("0.2.5") and made["bearer_token_created"] is False
    again = home("init")
    assert "0.x" not in again and made["relay_token"] not in again


def test_many_files_are_few_commits_and_few_lines(
    db: None, folder: Path, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    """Each commit is a sync of the disk. What is wrong with each of them is told of the first 20."""
    with closing(sqlite3.connect(folder / "state.sqlite3")) as database:
        database.execute("DELETE FROM files")
        for number in range(250):
            path = folder / "uploads" / f"file_{number:032x}"
            path.write_bytes(b"%d" % number)
            row = (path.name, "a.txt", "user_data", "text/plain", 1, "0" * 64, 1_790_000_000, str(path))
            names = "id, filename, purpose, content_type, bytes, sha256, created_at, storage_path"
            database.execute(f"INSERT INTO files ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        database.commit()
    settings.DATA_DIR = folder
    User.objects.create_superuser("first")
    told: list[str] = []
    with caplog.at_level(logging.WARNING):
        said = take_over(told.append)
    assert said[0] == "Taken over from AIRelays 0.x for first: 250 files, 2 conversations."
    assert told == ["Taking over 252 files and conversations of AIRelays 0.x …"]
    lines = [record.getMessage() for record in caplog.records if "first_run" in record.name]
    assert len(lines) == 21 and lines[-1].startswith("230 more")
    assert take_over(told.append) == [] and len(told) == 1


@pytest.mark.parametrize(
    ("sizes", "together"),
    [
        ([1] * 1100, [500, 500, 100]),
        ([20 << 20] * 3, [1, 1, 1]),
        ([10 << 20] * 4, [3, 1]),
        ([-5, 1 << 60], [1, 1]),
        ([], []),
    ],
)
def test_files_are_taken_over_together_as_long_as_that_is_quick(sizes: list[int], together: list[int]) -> None:
    given = [FormerFile("a", "a", "", "", size, "", 0, None) for size in sizes]
    assert [len(batch) for batch in adoption._batches(given)] == together


def test_conversations_are_read_one_by_one_and_known_ones_not_at_all(folder: Path) -> None:
    """Each may be as large as all that was said in it: they are never in memory together."""
    with read_former(folder, ()) as state:
        assert state.size == 4 and not isinstance(state.conversations, (list, tuple))
        names = [one.id for one in state.conversations]
    with read_former(folder, {f"conversation:{name}" for name in names}) as state:
        assert state.size == 2 and list(state.conversations) == []
