"""The portal of the run: `serve` with two workers, its processes, its log, and its commands."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.support.environment import as_users_run
from tests.support.load.targets import CLOCK_TICKS, family
from tests.support.server import ROOT, free_port

WORKERS: Final = 2
_START_SECONDS: Final = 180.0


class Product:
    """Starts and watches the portal. uvicorn replaces a worker that is gone; the run, `serve` if that ends."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.port, self.env, self.log = free_port(), env, folder / "portal.log"
        self.url = f"http://127.0.0.1:{self.port}"
        self.ends: list[str] = []  # of `serve`, which nobody asked for
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "manage.py", "serve", "--port", str(self.port), "--workers", str(WORKERS)]
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=as_users_run(self.env),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> int | None:
        """Ask it to stop, and wait; returns its exit code, None: it had to be killed."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            return None

    def restart_if_gone(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self.ends.append(f"{time.strftime('%H:%M:%S')}: serve ended with {self._process.returncode}")
            self.start()

    def workers(self) -> list[int]:
        """The process ids of the workers, the oldest first."""
        assert self._process is not None  # noqa: S101  # started
        found = []
        for task in Path(f"/proc/{self._process.pid}/task").glob("*/children"):
            for child in task.read_text().split():
                try:
                    command = Path(f"/proc/{child}/cmdline").read_bytes()
                    began = int(Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[19])
                except (OSError, IndexError):
                    continue  # it has just ended
                if b"workers/worker.py" in command:
                    found.append((began, int(child)))
        return [pid for _, pid in sorted(found)]

    def cpu(self, *servers: int) -> dict[int, float]:
        """Seconds of processor time of each process of the run, the portal's included, and of servers beside it."""
        found = {}
        for pid in [pid for root in (os.getpid(), *servers) for pid in _family(root)]:
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue  # it has just ended
            found[pid] = (int(fields[11]) + int(fields[12])) / CLOCK_TICKS
        return found

    def keeps_house(self, pid: int) -> bool:
        """Whether this worker has started, which it writes to the database."""
        import psycopg

        sql = f"SELECT 1 FROM relay_worker WHERE pid = {pid} AND seen_at > now() - interval '30 s'"  # noqa: S608
        try:
            return bool(self.query(sql))
        except psycopg.Error:
            return False

    async def ready(self, http: aiohttp.ClientSession, times: int = 6) -> bool:
        """Wait until `/readyz` says yes so many times in a row, on new connections, so that each worker is asked."""
        until, good = time.monotonic() + _START_SECONDS, 0
        while good < times and time.monotonic() < until:
            self.restart_if_gone()
            try:
                async with (
                    asyncio.timeout(10),
                    http.get(f"{self.url}/readyz", headers={"connection": "close"}) as answer,
                ):
                    good = good + 1 if answer.status == 200 else 0
            except (aiohttp.ClientError, ConnectionError, TimeoutError):
                good = 0
            await asyncio.sleep(0.1)
        return good >= times

    def manage(self, *arguments: str, seconds: float = 300) -> tuple[int, str]:
        """Run a command of the portal: its exit code, and what it says."""
        found = subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env=as_users_run(self.env),
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        return found.returncode, found.stdout + found.stderr

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        import psycopg

        with psycopg.connect(self.env["AIRELAYS_DATABASE_URL"], connect_timeout=10) as connection:
            return connection.execute(sql.encode()).fetchall()


def _family(pid: int) -> list[int]:
    """A process and its descendants; none while some of them are ending."""
    try:
        return family(pid)
    except OSError:
        return []


def rss_mib(pid: int) -> float:
    """The resident memory of one process; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
    except OSError:
        return 0.0
