"""A relay that one person runs in a home folder of their own: the real commands and a real server.

The issuer and the servers behind the ChatGPT plan are `tests.support.peers.plans.chatgpt`.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.portal.airelays import FILES, home_of
from tests.support import environment, forks
from tests.support.environment import OwnDatabase
from tests.support.peers.plans.chatgpt import ChatGPT
from tests.support.peers.plans.people import settings_for
from tests.support.server import ROOT, Server, free_port, wait_until_up


class InDatabase(Protocol):
    """The fixture `servers_database`."""

    def __call__(self, database: str = "") -> AbstractContextManager[None]: ...


@dataclass
class Home:
    """A home folder, in which commands run. `env`: their whole environment."""

    path: Path
    env: dict[str, str]
    port: int
    database: OwnDatabase | None = None
    said: list[str] = field(default_factory=list)  # all that commands have printed

    @property
    def data(self) -> Path:
        return self.path / ".airelays"

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `airelays`."""
        done = forks.run(["-m", "portal.cli", *words], {**self._environ(), **env})
        self.said += [done.stdout, done.stderr]
        return done

    def __call__(self, *words: str, **env: str) -> str:
        """The same for one that succeeds: what it printed."""
        done = self.run(*words, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def json(self, *words: str, **env: str) -> Any:
        return json.loads(self(*words, "--json", **env))

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        """Start a command that waits for somebody."""
        command = [sys.executable, "-m", "portal.cli", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **self._environ(), **env}, stdout=pipe, stderr=pipe, text=True
        )

    def login(self, chatgpt: ChatGPT, *words: str, **env: str) -> dict[str, Any]:
        """Sign in with ChatGPT as a person with a browser does. Returns the `auth` that the command prints."""
        running = self.start("login", "--no-browser", "--json", *words, **env)
        assert running.stderr is not None
        address = next(line.strip() for line in running.stderr if line.startswith("http"))
        assert urllib.request.urlopen(chatgpt.authorize(address), timeout=30).status == 200
        out, err = running.communicate(timeout=90)
        self.said += [out, err]
        assert running.returncode == 0, err
        found: dict[str, Any] = json.loads(out)["auth"]
        return found

    @contextmanager
    def serving(self, *words: str, **env: str) -> Iterator[Server]:
        """`airelays serve`, until the end of the block."""
        port = int(env.pop("AIRELAYS_PORT", 0)) or free_port()
        log = self.path / f"log-{port}"
        environ = {**os.environ, **self._environ(), **env, "AIRELAYS_PORT": str(port)}
        with log.open("ab") as out:
            command = ["-m", "portal.cli", "serve", *words]
            process: subprocess.Popen[bytes] | forks.Forked
            if "PYTHONPATH" in env:  # which a fork would not read
                process = subprocess.Popen(
                    [sys.executable, *command], cwd=ROOT, env=environ, stdout=out, stderr=out, start_new_session=True
                )
            else:
                process = forks.start(command, environ, out.fileno(), out.fileno())
        url = self.env.get("AIRELAYS_DATABASE_URL", "")
        server = Server(port, process, log, url or str(self.data / "state.sqlite3"))
        try:
            wait_until_up(server)
            yield server
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(60)
            server.connection.close()

    def _environ(self) -> dict[str, str]:
        """Settings of the suite are empty, which is as unset."""
        unset = {name: "" for name in os.environ if name.startswith("AIRELAYS_")}
        return {**unset, **self.env, "HOME": str(self.path), "AIRELAYS_PORT": str(self.port)}


def home_in(folder: Path, **env: str) -> Home:
    """A home folder in which nothing is but a migrated database, which `airelays init` would take seconds for."""
    data = folder / ".airelays"
    database = environment.make_own_database(data)
    data.mkdir(parents=True, exist_ok=True)
    if not (data / "keys").exists():
        (data / "keys").symlink_to(environment.DATA_DIR / "keys")
    data.chmod(0o700)
    url = {"AIRELAYS_DATABASE_URL": database.env["AIRELAYS_DATABASE_URL"]} if environment.DATABASE_URL else {}
    quick = {"AIRELAYS_JOBS": "false", "AIRELAYS_FEED_POLL_SECONDS": "0.05", "AIRELAYS_UPSTREAM_ALLOW": "127.0.0.1"}
    return Home(folder, {**quick, **url, **env}, free_port(), database)


def empty_home(folder: Path, **env: str) -> Home:
    """A home folder, in which there may be what AIRelays 0.x has left. Its database is SQLite, as of any new one."""
    folder.mkdir(parents=True, exist_ok=True)
    return Home(folder, {"AIRELAYS_JOBS": "false", "AIRELAYS_UPSTREAM_ALLOW": "127.0.0.1", **env}, free_port())


def home_with_tables(version: str, folder: Path) -> Home:
    """A home folder that AIRelays 0.x left, whose database has the portal's tables, too: to make those takes long."""
    home = empty_home(home_of(version, folder))
    environment.new_sqlite(home.data)
    with closing(sqlite3.connect(home.data / "state.sqlite3")) as database:
        database.executescript(
            (FILES / version / "state.sql").read_text(encoding="utf-8").replace("{home}", str(folder))
        )
    return home


@dataclass
class Relay:
    """A relay that runs in a home folder, set up by `airelays init`; its owner has signed in and turned the plan on."""

    home: Home
    server: Server
    token: str
    password: str
    chatgpt: ChatGPT

    def respond(self, path: str = "/v1/responses", **body: Any) -> Any:
        asked = {"/v1/responses": {"input": "Hi"}, "/v1/completions": {"prompt": "Hi"}}
        chat = {"messages": [{"role": "user", "content": "Hi"}]}
        return self.server.post(self.token, {"model": "gpt-5.5", **asked.get(path, chat), **body}, path)

    @property
    def sent(self) -> dict[str, Any]:
        """The body of the last request for a response that the plan was sent."""
        found: dict[str, Any] = self.chatgpt.seen[-1]["body"]
        return found


@contextmanager
def personal_relay(folder: Path, chatgpt: ChatGPT, inside: InDatabase, **env: str) -> Iterator[Relay]:
    """Set one up and run it."""
    home = home_in(folder, **{**settings_for(chatgpt), "AIRELAYS_SHARED_DATA_DIR": "true", **env})
    made = home.json("init")
    home.login(chatgpt)
    turn_on(home, inside)
    with home.serving(AIRELAYS_PORT=str(home.port)) as server:
        yield Relay(home, server, made["relay_token"], made["admin"]["password"], chatgpt)


def turn_on(home: Home, inside: InDatabase) -> None:
    """Both switches of the page “ChatGPT”."""
    assert home.database is not None
    with inside(home.database.name):
        from relay.channels.chatgpt_accounts import store
        from relay.models import ChatGPTAccount

        account = ChatGPTAccount.objects.get()
        store.set_on(account, True, account.user, None)
        store.set_api(account, True, account.user, None)


def keychain_of(folder: Path, service: str, user: str, secret: str) -> dict[str, str]:
    """The environment of a program for which the library `keyring` finds one entry."""
    folder.mkdir(exist_ok=True)
    (folder / "keyring.py").write_text(
        f"def get_password(service, user):\n    return {{({service!r}, {user!r}): {secret!r}}}.get((service, user))\n"
    )
    return {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
