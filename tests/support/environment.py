"""A pytest plugin that is loaded before Django's settings: every worker of the suite has a data folder, a database and
a Redis of its own.

What a run leaves behind, its first process takes away. A database is migrated once a run; all of its databases are
copies of that one.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pymysql

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")  # pytest-xdist names them gw0, gw1, …
DATABASE_URL = os.environ.get("TEST_DATABASE_URL", "")  # of a server, on which the suite makes its databases
REDIS_URL = os.environ.get("TEST_REDIS_URL", "")  # of a Redis that the suite may empty
ROOT = Path(__file__).resolve().parent.parent.parent


IS_POSTGRESQL = DATABASE_URL.startswith("postgresql:")
IS_MARIADB = DATABASE_URL.startswith(("mysql:", "mariadb:"))


def _of_mariadb(url: str) -> dict[str, Any]:
    """Arguments of the driver and of the server's own programs."""
    parts = urlsplit(url)
    found = {"host": parts.hostname, "port": parts.port or 3306, "user": parts.username, "password": parts.password}
    return {name: value for name, value in found.items() if value}


def to_mariadb(url: str) -> Any:
    """A connection to a MariaDB, or to a database on it."""
    where = {"database": urlsplit(url).path.strip("/"), "charset": "utf8mb4"}
    return pymysql.connect(**_of_mariadb(url), **where, autocommit=True, ssl_disabled=True)


def on_server(sql: str) -> list[tuple[str]]:
    """Execute a statement on the suite's server."""
    if IS_MARIADB:
        connection = to_mariadb(DATABASE_URL.rpartition("/")[0])
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())
    import psycopg

    with psycopg.connect(DATABASE_URL, autocommit=True) as connection:
        found = connection.execute(sql.encode())
        return found.fetchall() if found.description else []


def end_connections(name: str) -> None:
    """Let the server end all connections to a database."""
    if IS_POSTGRESQL:
        on_server(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        return
    for (number,) in on_server(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"):
        with suppress(pymysql.err.OperationalError):  # it has ended by itself
            on_server(f"KILL {number}")


def _tidy() -> None:
    shutil.rmtree(RUN, ignore_errors=True)
    if DATABASE_URL:
        names, force = "SELECT datname FROM pg_database WHERE datname", " WITH (FORCE)"
        if IS_MARIADB:
            names, force = "SELECT schema_name FROM information_schema.schemata WHERE schema_name", ""
        for (name,) in on_server(f"{names} LIKE '{_NAME}%'"):
            on_server(f"DROP DATABASE IF EXISTS {name}{force}")


if WORKER == "main":
    os.environ["TEST_RUN"] = tempfile.mkdtemp(prefix="airelays-tests-")
    atexit.register(_tidy)
RUN = Path(os.environ["TEST_RUN"])
DATA_DIR = RUN / WORKER
# Begins the names of the run's databases on a server.
_NAME = f"airelays_{RUN.name.removeprefix('airelays-tests-').encode().hex()}"


def _url(name: str) -> str:
    return f"{DATABASE_URL.rpartition('/')[0]}/{name}"


def _template(kind: str) -> Path:
    """The folder of a migrated database, made by whoever comes first.

    With kind "server" the database itself is on the server.
    """
    folder = RUN / f"template-{kind}"
    with (RUN / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            if kind == "server":
                _create(f"{_NAME}_template")
            env = {
                **os.environ,
                "AIRELAYS_DATA_DIR": str(folder),
                "AIRELAYS_DATABASE_URL": _url(f"{_NAME}_template") if kind == "server" else "",
            }
            subprocess.run(
                [sys.executable, "manage.py", "migrate", "--no-input", "-v", "0"], cwd=ROOT, env=env, check=True
            )
    return folder


def new_sqlite(folder: Path) -> None:
    """A migrated database in a data folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_template("sqlite") / "state.sqlite3", folder / "state.sqlite3")


def new_database(folder: Path, name: str = "") -> str:
    """A migrated database for a data folder, on the suite's server if it has one: its URL, or "" for SQLite."""
    if not DATABASE_URL:
        new_sqlite(folder)
        return ""
    _template("server")
    name = name or f"{_NAME}_{os.urandom(4).hex()}"
    _create(name, f"{_NAME}_template")
    return _url(name)


def _create(name: str, template: str = "") -> None:
    """Create a database on the server, as a copy of another one."""
    if IS_POSTGRESQL:
        on_server(f"CREATE DATABASE {name}" + (f" TEMPLATE {template}" if template else ""))
        return
    on_server(f"CREATE DATABASE {name} CHARACTER SET latin1")
    if template:
        where = ["--no-defaults", *(f"--{name}={value}" for name, value in _of_mariadb(DATABASE_URL).items())]
        dump = subprocess.run(["mariadb-dump", *where, template], stdout=subprocess.PIPE, check=True)
        subprocess.run(["mariadb", *where, name], input=dump.stdout, check=True)


def make_own_databases() -> str:
    """Of this worker: that of its servers, which the settings name, and one for tests that are rolled back, whose name
    is returned.
    """
    new_database(DATA_DIR, f"{_NAME}_{WORKER}")
    url = new_database(DATA_DIR / "alone", f"{_NAME}_{WORKER}_alone")
    return url.rpartition("/")[2] or str(DATA_DIR / "alone" / "state.sqlite3")


@dataclass(frozen=True)
class OwnDatabase:
    name: str  # in Django's settings
    env: dict[str, str]  # of servers that use it


def make_own_database(folder: Path) -> OwnDatabase:
    """A migrated database in a folder, whose servers have the keys of this process."""
    if url := new_database(folder):
        return OwnDatabase(url.rpartition("/")[2], {"AIRELAYS_DATABASE_URL": url})
    (folder / "keys").symlink_to(DATA_DIR / "keys")
    return OwnDatabase(str(folder / "state.sqlite3"), {"AIRELAYS_DATA_DIR": str(folder)})


# Of tests alone: portals that are measured have what users have.
_OF_TESTS = ("AIRELAYS_JOBS", "AIRELAYS_FIRST_BYTE_TIMEOUT", "AIRELAYS_DISCONNECT_READ_SECONDS")


def as_users_run(settings: dict[str, str]) -> dict[str, str]:
    """The environment of a portal with these settings, and the defaults for all that tests set for themselves."""
    return {**{name: value for name, value in os.environ.items() if name not in _OF_TESTS}, **settings}


for variable in list(os.environ):
    if variable.startswith(("AIRELAYS_", "AIRELAY_", "OPENAI_ENDPOINT_")):
        del os.environ[variable]
# Each of a hundred servers would compile all of the portal, and each worker all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ.update(
    AIRELAYS_DATA_DIR=str(DATA_DIR),
    AIRELAYS_CONFIG="",
    AIRELAYS_DATABASE_URL=_url(f"{_NAME}_{WORKER}") if DATABASE_URL else "",
    AIRELAYS_UPSTREAM_ALLOW="127.0.0.1",
    AIRELAYS_FIRST_BYTE_TIMEOUT="20",
    AIRELAYS_DISCONNECT_READ_SECONDS="3",
    AIRELAYS_SHARED_DATA_DIR="true",  # tests of several workers start several portals
    AIRELAYS_JOBS="false",  # tests do the scheduled work when they mean to
    HOME=str(DATA_DIR),  # nobody's real configuration is read
    NO_PROXY="127.0.0.1,localhost",
)
if REDIS_URL:
    import redis

    number = (
        0 if WORKER == "main" else int(WORKER.removeprefix("gw")) + 1
    )  # a logical database for each worker: Redis has sixteen
    os.environ["AIRELAYS_REDIS_URL"] = f"{REDIS_URL.rpartition('/')[0]}/{number}"
    redis.Redis.from_url(os.environ["AIRELAYS_REDIS_URL"]).flushdb()
for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(variable, None)
