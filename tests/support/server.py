"""The portal as users run it: a process of its own on a real port."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support import environment, forks
from tests.support.asserts import until

# Most calls make a client of their own, as strangers would; to read the certificates of the world for each would take
# a fifth of the suite's time.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_LOOK_SECONDS = 0.05  # as often as the server looks for changes: to answer costs it more than that
_MARK = "INSERT INTO accounts_change (topic, \"key\", created_at) VALUES ('test', '', now()) RETURNING id"
ROOT = Path(__file__).resolve().parent.parent.parent


def free_port() -> int:
    """Below the range from which the system takes ports for outgoing connections, so that none of those comes before
    the server.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class _Connection:
    """To the database of a server, kept for as long as that runs: one to PostgreSQL costs it a process, one to SQLite
    reads the whole schema.
    """

    def __init__(self, database: str) -> None:
        self._database, self._lock = database, threading.Lock()
        self._open: Any = None
        self._file = 0  # the inode of the SQLite file that is open

    def query(self, sql: str) -> list[Any]:
        kind = self._database.partition(":")[0]
        ask = {"postgresql": self._ask_server, "mariadb": self._ask_mariadb}.get(kind, self._ask_file)
        with self._lock:
            return ask(sql)

    def _ask_mariadb(self, sql: str) -> list[Any]:
        if self._open is None:
            self._open = environment.to_mariadb(self._database)
            with self._open.cursor() as cursor:
                cursor.execute("SET sql_mode = CONCAT(@@sql_mode, ',ANSI_QUOTES')")
        with self._open.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def _ask_server(self, sql: str) -> list[Any]:
        import psycopg

        try:
            return self._ask_once(sql)
        except psycopg.OperationalError:  # a test has ended all connections
            self.close()
            return self._ask_once(sql)

    def _ask_once(self, sql: str) -> list[Any]:
        import psycopg

        if self._open is None:
            self._open = psycopg.connect(self._database, autocommit=True)
        return list(self._open.execute(sql.encode()).fetchall())

    def _ask_file(self, sql: str) -> list[Any]:
        if self._file != (now := Path(self._database).stat().st_ino):  # else a test has put another in its place
            self.close()
            self._open = sqlite3.connect(self._database, isolation_level=None, check_same_thread=False)
            self._file = now
        with closing(self._open.execute(sql)) as found:
            return list(found.fetchall())

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open, self._file = None, 0


@dataclass
class Server:
    port: int
    process: subprocess.Popen[bytes] | forks.Forked
    log: Path
    database: str
    seen: tuple[int, int] = (-1, 0)  # the changes that it is known to have taken over

    def __post_init__(self) -> None:
        self.connection = _Connection(self.database)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def v1(self) -> str:
        return f"{self.url}/v1"

    def query(self, sql: str) -> list[Any]:
        """Ask the server's database, beside Django's connection."""
        return self.connection.query(sql)

    def catch_up(self) -> None:
        """Wait until the (one) worker has taken over every change made so far."""
        if (state := self._changes()) == self.seen:
            return
        newest = state[0]
        if self.database.startswith(("postgresql:", "mariadb:")):
            # A change may be committed behind one with a higher id, and is read at the latest with the next one.
            newest = self.query(_MARK)[0][0]
            state = (newest, state[1] + 1)
        time.sleep(_LOOK_SECONDS)  # it has hardly looked since
        until(lambda: self._change_seen() >= newest, every=_LOOK_SECONDS)
        self.seen = state

    def _change_seen(self) -> int:
        """Asked twice in most tests, for which a client of httpx would be too dear."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request("GET", "/readyz")
            return int(json.loads(connection.getresponse().read())["change_seen"])

    def _changes(self) -> tuple[int, int]:
        """The newest change and their number, which grows with a late one of a lower id, too."""
        newest, number = self.query("SELECT max(id), count(*) FROM accounts_change")[0]
        return newest or 0, number

    def post(self, token: str, body: object, path: str = "/v1/chat/completions", **options: Any) -> httpx.Response:
        self.catch_up()
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json", **options.pop("headers", {})}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(
            self.url + path,
            content=data,
            headers=headers,
            timeout=100,
            trust_env=False,
            verify=NO_CERTIFICATES,
            **options,
        )

    def get(self, token: str, path: str, **headers: str) -> httpx.Response:
        self.catch_up()
        return httpx.get(
            self.url + path,
            headers={"authorization": f"Bearer {token}", **headers},
            timeout=100,
            trust_env=False,
            verify=NO_CERTIFICATES,
        )

    def request(self, method: str, token: str, path: str, **options: Any) -> httpx.Response:
        self.catch_up()
        return httpx.request(
            method,
            self.url + path,
            headers={"authorization": f"Bearer {token}"},
            timeout=100,
            trust_env=False,
            verify=NO_CERTIFICATES,
            **options,
        )

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(
    log: Path,
    *arguments: str,
    env: dict[str, str] | None = None,
    port: int | None = None,
    command: list[str] | None = None,
) -> Iterator[Server]:
    """Start `manage.py serve`, or another command that listens on `port`, and end it afterwards."""
    port = port or free_port()
    environ = {**os.environ, **(env or {})}
    process: subprocess.Popen[bytes] | forks.Forked
    with log.open("ab") as out:
        if command:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environ, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        else:
            serve = ["manage.py", "serve", "--port", str(port), *arguments]
            process = forks.start(serve, environ, out.fileno(), out.fileno())
    url = (env or {}).get("AIRELAYS_DATABASE_URL", os.environ.get("AIRELAYS_DATABASE_URL", ""))
    database = url or str(
        Path((env or {}).get("AIRELAYS_DATA_DIR") or os.environ["AIRELAYS_DATA_DIR"]) / "state.sqlite3"
    )
    server = Server(port, process, log, database)
    try:
        wait_until_up(server)
        yield server
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
        server.connection.close()


def wait_until_up(server: Server) -> None:
    while True:
        if server.process.poll() is not None:
            raise AssertionError(
                f"the server ended with {server.process.returncode}:\n{server.log.read_text()[-3000:]}"
            )
        try:
            if (
                _listens(server.port)
                and httpx.get(f"{server.url}/healthz", timeout=10, trust_env=False, verify=NO_CERTIFICATES).status_code
                == 200
            ):
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.05)


def _listens(port: int) -> bool:
    """Asked twenty times a second while a server starts, for which a client would be too dear."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
