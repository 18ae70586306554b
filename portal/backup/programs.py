"""The programs of PostgreSQL and MySQL that dump a database and load a dump. No password is in their arguments."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper

_PACKAGES: Final = {"postgresql": "postgresql-client", "mysql": "mariadb-client"}
_LONGEST: Final = 300  # characters of what a program says
# Options of Django's that are none of the server's client.
_OF_DJANGO: Final = frozenset(("pool", "assume_role", "isolation_level", "server_side_binding", "client_encoding"))


class ProgramFailed(Exception):
    """A program is missing, or has failed. The message is one or two sentences."""


def dump_postgresql(database: BaseDatabaseWrapper, snapshot: str, to: Path) -> None:
    """Dump a database as a snapshot of a transaction sees it, in the custom format of `pg_dump`, not compressed."""
    with _postgresql(database) as (target, environment), to.open("wb") as file:
        _run(
            [*_program("postgresql", "pg_dump"), "--format=custom", "--compress=0", "--no-owner", "--no-privileges",
             f"--snapshot={snapshot}", target],
            environment, stdout=file,
        )  # fmt: skip


def load_postgresql(database: BaseDatabaseWrapper, dump: Path) -> None:
    """Load such a dump into an empty database, all of it or nothing."""
    with _postgresql(database) as (target, environment):
        _run(
            [*_program("postgresql", "pg_restore"), "--no-owner", "--no-privileges", "--single-transaction",
             "--exit-on-error", f"--dbname={target}", str(dump)],
            environment,
        )  # fmt: skip


def dump_mysql(database: BaseDatabaseWrapper, to: Path) -> None:
    """Dump a database as one transaction sees it."""
    with _mysql(database) as options, to.open("wb") as file:
        program = _program("mysql", "mariadb-dump", "mysqldump")
        more = [
            "--single-transaction",
            "--quick",
            "--hex-blob",
            "--skip-lock-tables",
            "--default-character-set=utf8mb4",
        ]
        _run([*program, *options, *more, str(database.settings_dict["NAME"])], {}, stdout=file)


def load_mysql(database: BaseDatabaseWrapper, dump: Path) -> None:
    """Load such a dump into an empty database. One that breaks off leaves what it has made: there is no rollback.

    The client obeys nothing in the dump but SQL: `system` and `\\!` would run programs, and LOCAL INFILE read files.
    """
    with _mysql(database) as options, dump.open("rb") as file:
        program = _program("mysql", "mariadb", "mysql")
        name = str(database.settings_dict["NAME"])
        more = ["--binary-mode", "--local-infile=0", "--default-character-set=utf8mb4"]
        _run([*program, *options, *more, name], {}, stdin=file)


def _program(vendor: str, *names: str) -> list[str]:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        raise ProgramFailed(f"{names[0]} is missing. Install it: apt install {_PACKAGES[vendor]}")
    return [found]


def _run(
    command: Sequence[str], environment: dict[str, str], stdin: IO[bytes] | None = None, stdout: IO[bytes] | None = None
) -> None:
    name = Path(command[0]).name
    done = subprocess.run(  # noqa: S603  # a program of the PATH, with arguments of ours
        command, env={**os.environ, **environment, "LC_ALL": "C"}, stdin=stdin or subprocess.DEVNULL,
        stdout=stdout or subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    if done.returncode:
        lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
        said = " ".join(lines[:2]).removeprefix(f"{name}: ").removeprefix("error: ")[:_LONGEST].rstrip(".")
        step = ""
        if "version mismatch" in said or "unsupported version" in said:
            step = " Install the client of the server's version, or a newer one."
        raise ProgramFailed(f"{name} failed: {said or f'exit code {done.returncode}'}.{step}")


@contextmanager
def _postgresql(database: BaseDatabaseWrapper) -> Iterator[tuple[str, dict[str, str]]]:
    """The target of a program, without its password, and the environment that has that."""
    from psycopg.conninfo import make_conninfo

    about = database.settings_dict
    named = {"dbname": "NAME", "host": "HOST", "port": "PORT", "user": "USER"}
    options: dict[str, Any] = {key: about[name] for key, name in named.items() if about.get(name)}
    options |= {
        key: value
        for key, value in about["OPTIONS"].items()
        if key not in _OF_DJANGO and isinstance(value, str | int) and key != "password"
    }
    password = str(about.get("PASSWORD") or about["OPTIONS"].get("password") or "")
    yield make_conninfo("", **options), {"PGPASSWORD": password} if password else {}


@contextmanager
def _mysql(database: BaseDatabaseWrapper) -> Iterator[list[str]]:
    """The options of a program that name a file, for its owner alone, with server, user and password."""
    about = database.settings_dict
    host = str(about.get("HOST") or "")
    lines = ["[client]"]
    values = {
        "socket" if host.startswith("/") else "host": host, "port": about.get("PORT"), "user": about.get("USER"),
        "password": about.get("PASSWORD"),
    }  # fmt: skip
    ssl = about["OPTIONS"].get("ssl") or {}
    values |= {f"ssl-{name}": value for name, value in ssl.items() if name in {"ca", "cert", "key"}}
    for name, value in values.items():
        if value:
            lines.append(f'{name}="{str(value).replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34))}"')
    with tempfile.NamedTemporaryFile("w", prefix=".airelays-", suffix=".cnf", encoding="utf-8") as file:  # mode 0600
        file.write("\n".join(lines) + "\n")
        file.flush()
        yield [f"--defaults-file={file.name}"]
