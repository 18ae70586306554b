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
# Secrets among the options of a connection beside the password, which has a variable of its own.
_SECRETS: Final = frozenset(("sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"))
_SERVICE: Final = "airelays"
_PACKET: Final = "--max-allowed-packet=1G"  # of the client, which takes 16 or 24 MB otherwise: rows may be larger
# What clients of MySQL and MariaDB call a mode of `ssl-mode`: `loose-` since neither knows all options of the other.
_TLS: Final = {
    "DISABLED": {"loose-ssl": 0},
    "REQUIRED": {"loose-ssl": 1, "loose-ssl-verify-server-cert": 0},
    "VERIFY_CA": {"loose-ssl": 1, "loose-ssl-verify-server-cert": 0},
    "VERIFY_IDENTITY": {"loose-ssl": 1, "loose-ssl-verify-server-cert": 1},
}


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
            _PACKET,
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
        more = ["--binary-mode", "--local-infile=0", _PACKET, "--default-character-set=utf8mb4"]
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
        told = done.stderr.decode(errors="replace").splitlines()
        lines = [line for line in told if line.strip() and "'loose-" not in line]  # an option of another client's
        said = " ".join(lines[:2]).removeprefix(f"{name}: ").removeprefix("error: ")[:_LONGEST].rstrip(".")
        step = ""
        if "version mismatch" in said or "unsupported version" in said:
            step = " Install the client of the server's version, or a newer one."
        raise ProgramFailed(f"{name} failed: {said or f'exit code {done.returncode}'}.{step}")


@contextmanager
def _postgresql(database: BaseDatabaseWrapper) -> Iterator[tuple[str, dict[str, str]]]:
    """The target of a program, without its secrets, and the environment that has them, or names a file that has.

    Raises ProgramFailed for secrets that cannot be given to a program otherwise than in its arguments.
    """
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
    environment = {"PGPASSWORD": password} if password else {}
    secrets = {key: str(options.pop(key)) for key in _SECRETS & options.keys()}
    if not secrets:
        yield make_conninfo("", **options), environment
        return
    if "service" in options or any(value != value.strip() or not value.isprintable() for value in secrets.values()):
        raise ProgramFailed(
            f"{', '.join(sorted(secrets))} of AIRELAYS_DATABASE_URL cannot be given to pg_dump out of sight: put it "
            "into the file of a service (PGSERVICEFILE), and name that with service=."
        )
    lines = [f"[{_SERVICE}]", *(f"{key}={value}" for key, value in sorted(secrets.items()))]
    with _private_file(lines, ".conf") as name:
        yield make_conninfo("", **options, service=_SERVICE), {**environment, "PGSERVICEFILE": name}


@contextmanager
def _private_file(lines: Sequence[str], suffix: str) -> Iterator[str]:
    """The name of a file of these lines that its owner alone may read, as long as it is needed."""
    with tempfile.NamedTemporaryFile("w", prefix=".airelays-", suffix=suffix, encoding="utf-8") as file:  # mode 0600
        file.write("\n".join(lines) + "\n")
        file.flush()
        yield file.name


@contextmanager
def _mysql(database: BaseDatabaseWrapper) -> Iterator[list[str]]:
    """The options of a program that name a file, for its owner alone, with server, user and password."""
    about = database.settings_dict
    more, host = about["OPTIONS"], str(about.get("HOST") or "")
    lines = ["[client]"]
    socket = more.get("unix_socket") or (host if host.startswith("/") else "")
    values = {
        "socket" if socket else "host": socket or host, "port": about.get("PORT"), "user": about.get("USER"),
        "password": about.get("PASSWORD"),
        # Clients take `localhost` for the usual socket, where another server may be; the driver does not.
        "protocol": "" if socket else "tcp",
    }  # fmt: skip
    values |= {name.replace("_", "-"): more.get(name) for name in ("ssl_ca", "ssl_cert", "ssl_key")}
    if mode := _TLS.get(str(more.get("ssl_mode"))):
        values |= {**mode, "loose-ssl-mode": more["ssl_mode"]}
    for name, value in values.items():
        if value not in (None, ""):
            lines.append(f'{name}="{str(value).replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34))}"')
    with _private_file(lines, ".cnf") as name:
        yield [f"--defaults-file={name}"]
