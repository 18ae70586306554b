"""A portal that was backed up, and restored from it elsewhere, by the commands."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from portal.backup import about
from portal.backup.about import CannotRestore
from portal.backup.archive import unpack, writing
from portal.config import load
from tests.support import environment

pytestmark = pytest.mark.shared
SEED = """
import os, django; os.environ["DJANGO_SETTINGS_MODULE"] = "portal.settings"; django.setup()
from django.core.management import call_command
from relay.models import Upload
from accounts.models import User
from relay.usage.rollup import catch_up
call_command("seed", users=4, tokens=6, requests=300, days=3); catch_up()
user, rows = User.objects.first(), []
for name, state in (("a" * 32, "stored"), ("b" * 32, "part"), ("c" * 32, "receiving"), ("d" * 32, "stored")):
    Upload.objects.create(file_id=f"file-{name}", user=user, filename="x.txt", purpose="user_data", size=1000,
        content_type="text/plain", sha256="@SUM@", storage_name=name, state=state, owner="")
"""
CONTENT = b"0123456789" * 100


class Place:
    """A data folder, and its database."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder = folder
        self.env = {
            **os.environ,
            "AIRELAYS_DATA_DIR": str(folder),
            "AIRELAYS_DATABASE_URL": database,
            "AIRELAYS_SHARED_DATA_DIR": "false",
        }

    def run(self, *words: str, code: int = 0, stdin: bytes | None = None, **more: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "portal.cli", *words],
            cwd=environment.ROOT, env={**self.env, **more}, input=stdin or b"", capture_output=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == code, (words, done.stdout[-2000:], done.stderr[-2000:])
        return done

    def json(self, *words: str, code: int = 0, **more: Any) -> Any:
        return json.loads(self.run(*words, "--json", code=code, **more).stdout)


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("portal") / "data"
    place = Place(folder, environment.new_database(folder))
    folder.mkdir(exist_ok=True, mode=0o700)
    (folder / ".env").write_text("AIRELAYS_LOG_LEVEL=ERROR\n")
    script = SEED.replace("@SUM@", hashlib.sha256(CONTENT).hexdigest())
    subprocess.run([sys.executable, "-c", script], cwd=environment.ROOT, env=place.env, check=True, timeout=240)
    for name in ("a" * 32, "b" * 32):
        path = folder / "uploads" / name[:2] / name
        path.parent.mkdir(parents=True)
        path.write_bytes(CONTENT)
    return place


def empty(folder: Path) -> Place:
    if not environment.DATABASE_URL:
        return Place(folder, "")
    name = f"{environment._NAME}_{os.urandom(4).hex()}"
    environment.on_server(f"CREATE DATABASE {name}")
    return Place(folder, environment._url(name))


def test_a_portal_is_restored_as_it_was(portal: Place, tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery\n")
    file = tmp_path / "one.backup"
    made = portal.json("backup", str(file), "--passphrase-file", str(secret), code=1)
    # A stored file is missing: the backup is made all the same, and says so.
    assert made["encrypted"] and made["files"] == 2 and made["damaged"] == ["d" * 32] and not made["gone"]
    assert file.stat().st_mode & 0o777 == 0o600 and b"secret_key" not in file.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert b"exists already" in portal.run("backup", str(file), code=1).stderr

    other = empty(tmp_path / "other")
    refused = other.run("restore", str(file), code=1, AIRELAYS_BACKUP_PASSPHRASE="another passphrase")
    assert b"not the one of this backup" in refused.stderr
    done = other.json("restore", str(file), "--passphrase-file", str(secret), code=1)
    assert done["files"] == 3 and not done["migrated"] and len(done["differences"]) == 1
    assert done["differences"][0].startswith("d" * 32)
    assert (other.folder / "uploads" / "aa" / ("a" * 32)).read_bytes() == CONTENT
    for name in ("secret_key", "encryption_keys", "token_key"):
        assert (other.folder / "keys" / name).read_text() == (portal.folder / "keys" / name).read_text()
    assert (Path(done["settings"]) / "data.env").read_text() == "AIRELAYS_LOG_LEVEL=ERROR\n"
    assert not [path for path in other.folder.iterdir() if path.name.startswith(".restoring")]
    there, here = (place.json("token", "list") for place in (portal, other))
    assert there == here
    assert other.json("manage", "ledger", "verify")["clean"]
    assert b"agree" in other.run("manage", "rollup", "verify").stdout
    assert b"already" in other.run("restore", str(file), "--passphrase-file", str(secret), code=1).stderr


def test_a_stream_is_restored_and_an_older_one_is_brought_up_to_date(portal: Place, tmp_path: Path) -> None:
    whole = portal.run("backup", "-", code=1).stdout
    folder = tmp_path / "unpacked"
    folder.mkdir()
    summary = unpack(io.BufferedReader(io.BytesIO(whole)), None, folder)
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery\n")
    other = Place(tmp_path / "swapped", "")
    refused = other.run("restore", "-", "--passphrase-file", str(secret), code=2, stdin=whole)
    assert b"not encrypted" in refused.stderr and not list(other.folder.glob("*"))
    assert summary["about"] == {**about.about(summary["about"]["database"]), "made_at": summary["about"]["made_at"]}
    if not environment.DATABASE_URL:
        older = Place(tmp_path / "older", "")
        (older.folder).mkdir()
        shutil.copytree(folder / "keys", older.folder / "keys")
        shutil.copy(folder / "database" / "state.sqlite3", older.folder)
        older.run("manage", "migrate", "relay", "0038_interrupted")
        shutil.copy(older.folder / "state.sqlite3", folder / "database" / "state.sqlite3")
        told = {**summary["about"], "migrations": {**summary["about"]["migrations"], "relay": "0038_interrupted"}}
        whole = packed(folder, told, tmp_path)
    place = empty(tmp_path / "place")
    done = place.json("restore", "-", stdin=whole, code=1)
    assert done["migrated"] is not bool(environment.DATABASE_URL) and done["files"] == 3
    assert place.json("manage", "ledger", "verify")["clean"]


def packed(folder: Path, told: dict[str, Any], scratch: Path) -> bytes:
    to = io.BytesIO()
    with writing(to, None, scratch) as archive:
        archive.add_text("about.json", json.dumps(told))
        for path in sorted(folder.rglob("*/*")):
            if path.is_file():
                with path.open("rb") as file:
                    archive.add(str(path.relative_to(folder)), file, path.stat().st_size)
        archive.add_text("summary.json", "{}")
    return to.getvalue()


def test_a_restore_that_is_refused_leaves_nothing(portal: Place, tmp_path: Path) -> None:
    file = tmp_path / "cut.backup"
    whole = portal.run("backup", "-", code=1).stdout
    file.write_bytes(whole[: len(whole) // 2])
    place = empty(tmp_path / "place")
    assert b"not whole" in place.run("restore", str(file), code=1).stderr
    file.write_bytes(whole)
    key = "0123456789abcdef" * 4
    assert b"AIRELAYS_TOKEN_KEY is set" in place.run("restore", str(file), code=1, AIRELAYS_TOKEN_KEY=key).stderr
    assert not {"keys", "uploads", "state.sqlite3"} & {path.name for path in place.folder.iterdir()}
    assert not [path for path in place.folder.iterdir() if path.name.startswith(".restoring")]


def test_only_what_this_program_knows_is_restored() -> None:
    config = load(environ={})
    told = about.about("sqlite")
    about.check(told, config)
    for change, message in (
        ({"migrations": {**told["migrations"], "relay": "9999_later"}}, "newer than this one"),
        ({"migrations": {}}, "newer than this one"),
        ({"migrations": None}, "in a form"),
        ({"format": 2}, "in a form"),
        ({"database": "oracle"}, "in a form"),
        ({"database": ["sqlite"]}, "in a form"),
        ({"migrations": {"accounts": [], "relay": {}}}, "newer than this one"),
        ({"database": "postgresql"}, "is of PostgreSQL"),
    ):
        with pytest.raises(CannotRestore, match=message):
            about.check({**told, **change}, config)


def test_passphrases_are_long_and_no_arguments(portal: Place, tmp_path: Path) -> None:
    file = str(tmp_path / "b")
    assert (
        b"12 characters" in portal.run("backup", file, "--encrypt", code=2, AIRELAYS_BACKUP_PASSPHRASE="short").stderr
    )
    assert b"No passphrase" in portal.run("backup", file, "--encrypt", code=2).stderr
    missing = str(tmp_path / "nothing")
    assert b"cannot be read" in portal.run("backup", file, "--passphrase-file", missing, code=2).stderr
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_leaves_no_backup(portal: Place, tmp_path: Path) -> None:
    """A pipe whose reader has gone is as full as a disk can be."""
    read, write = os.pipe()
    done = subprocess.Popen(
        [sys.executable, "-m", "portal.cli", "backup", "-"],
        cwd=environment.ROOT, env=portal.env, stdout=write, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)

    def read_little() -> None:
        os.read(read, 10)
        os.close(read)

    threading.Thread(target=read_little, daemon=True).start()
    error = done.communicate(timeout=120)[1]
    assert done.returncode == 1 and b"cannot be written" in error and b"Traceback" not in error
    assert not [path for path in portal.folder.iterdir() if path.name.startswith(".airelays-backup")]
