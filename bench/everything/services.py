"""A PostgreSQL and a Redis of the run's own, on loopback, that can be restarted while others use them."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support import services
from tests.support.server import free_port

_SECONDS = 60  # that a server may take to start or stop


class Postgres:
    """A server with one database. Its data may be lost in a power cut, and not with its processes.

    `addresses`: on which it listens beside 127.0.0.1; it trusts all who can reach them.
    """

    def __init__(self, folder: Path, addresses: Sequence[str] = ()) -> None:
        self.port, self.data, self.log = free_port(), folder / "data", folder / "log"
        self._listen = ",".join(("127.0.0.1", *addresses))
        self.url = f"postgresql://airelays@127.0.0.1:{self.port}/postgres"
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(folder, account.pw_uid, account.pw_gid)
        self._run("initdb", "-U", "airelays", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        if addresses:
            with (self.data / "pg_hba.conf").open("a") as rules:
                rules.write("host all all samenet trust\n")
        self.start()

    def start(self) -> None:
        options = (
            f"-p {self.port} -c listen_addresses={self._listen} -c unix_socket_directories= -c max_connections=100"
        )
        self._run("pg_ctl", "-l", str(self.log), "-o", f"{options} -c fsync=off", "-t", str(_SECONDS), "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        """`mode`: fast ends all sessions; immediate ends like a crash, and the next start recovers."""
        self._run("pg_ctl", "-m", mode, "-t", str(_SECONDS), "-w", "stop")

    def process(self) -> list[int]:
        """The process id of the server, if it runs."""
        try:
            return [int((self.data / "postmaster.pid").read_text().split()[0])]
        except (OSError, ValueError, IndexError):
            return []

    def _run(self, name: str, *arguments: str) -> None:
        command = [*services.postgres_user(), str(services.postgres_program(name)), "-D", str(self.data), *arguments]
        # A server that is started keeps the descriptors that it is given: no pipes.
        subprocess.run(
            command,
            cwd="/",
            check=True,
            timeout=_SECONDS + 10,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


class Redis:
    """A server that forgets everything when it is restarted."""

    def __init__(self, folder: Path, addresses: Sequence[str] = ()) -> None:
        self.port, self.folder, self._bind = free_port(), folder, ("127.0.0.1", *addresses)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", *self._bind, "--save", "", "--appendonly", "no"]
        command += ["--protected-mode", "no"] if len(self._bind) > 1 else []
        with (self.folder / "log").open("ab") as out:
            self._process = subprocess.Popen([*command, "--dir", str(self.folder)], stdout=out, stderr=out)
        until = time.monotonic() + _SECONDS
        while not services.answers(self.port):
            if time.monotonic() > until or self._process.poll() is not None:
                raise RuntimeError(f"Redis did not start; see {self.folder / 'log'}")
            time.sleep(0.05)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(_SECONDS)


@contextmanager
def own_services(addresses: Sequence[str] = ()) -> Iterator[tuple[Postgres, Redis]]:
    """Start both, and remove them with their data. `addresses`: of links to namespaces of this machine."""
    services.install({"postgresql": services.postgres_program("initdb"), "redis-server": shutil.which("redis-server")})
    # Not below the run's folder, which PostgreSQL's user may not be able to enter.
    root = Path(tempfile.mkdtemp(prefix="airelays-everything-services-"))
    root.chmod(0o755)
    folders = [root / "postgres", root / "redis"]
    for folder in folders:
        folder.mkdir(mode=0o700)
    postgres = redis = None
    try:
        postgres = Postgres(folders[0], addresses)
        redis = Redis(folders[1], addresses)
        yield postgres, redis
    finally:
        if redis is not None:
            redis.stop()
        if postgres is not None:
            try:
                postgres.stop("immediate")
            except subprocess.SubprocessError:
                pass  # it is down
        shutil.rmtree(root, ignore_errors=True)
