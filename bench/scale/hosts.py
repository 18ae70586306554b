"""Hosts of a run: network namespaces of this machine, each with a portal, an upstream and load generators."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from tests.support.environment import as_users_run
from tests.support.load.targets import family
from tests.support.server import NO_CERTIFICATES, ROOT, free_port

NETWORK: Final = "10.231.77"  # of the links between this machine and its namespaces, four addresses each
_START_SECONDS: Final = 90


class Host:
    """A namespace; this machine itself, if `name` is empty. `prefix`: what enters it, before a command."""

    def __init__(self, name: str, address: str, folder: Path, env: dict[str, str]) -> None:
        self.name, self.address, self.env = name, address, env
        self.prefix = ["ip", "netns", "exec", name] if name else []
        self.port, self.log = free_port(), folder / f"portal-{name or 'here'}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._others: list[subprocess.Popen[bytes]] = []
        self._folder = folder

    @property
    def url(self) -> str:
        """As seen from this machine."""
        return f"http://{self.address}:{self.port}"

    def run(self, command: list[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as out:
            return subprocess.Popen(
                [*self.prefix, *command],
                cwd=ROOT,
                env=as_users_run(self.env),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def upstream(self, port: int) -> None:
        command = [sys.executable, "-m", "tests.support.load.upstream", str(port)]
        self._others.append(self.run(command, self._folder / f"upstream-{self.name or 'here'}.log"))

    def serve(self, workers: int) -> None:
        listen = ["--host", self.address, "--port", str(self.port), "--workers", str(workers)]
        self.process = self.run([sys.executable, "manage.py", "serve", *listen], self.log)

    def wait_until_up(self, workers: int) -> None:
        """Raises RuntimeError."""
        until, good = time.monotonic() + _START_SECONDS, 0
        while good < 3 * workers:
            if self.process is None or self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the portal did not start; see {self.log}")
            try:
                answer = httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False, verify=NO_CERTIFICATES)
                good = good + 1 if answer.status_code == 200 else 0
            except httpx.HTTPError:
                good = 0
            time.sleep(0.05)

    def workers(self) -> list[int]:
        """Process ids of the workers; of the only process, if there is one worker."""
        assert self.process is not None  # noqa: S101  # it serves
        pids = family(self.process.pid)
        children = pids[1:]
        return children or pids[:1]

    def replaced(self, old: set[int]) -> bool:
        """Wait until none of these workers is left."""
        until = time.monotonic() + _START_SECONDS
        while (left := old & set(self.workers())) and time.monotonic() < until:
            time.sleep(0.5)
        return not left

    def stop(self) -> int:
        """The exit code of `serve`."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(90)
        except subprocess.TimeoutExpired:
            self.kill()
            code = -signal.SIGKILL
        self.process = None
        return code

    def kill(self) -> None:
        """All processes of the portal at once, as when a machine loses its power."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def end(self) -> None:
        self.stop()
        for process in self._others:
            process.terminate()
            process.wait(10)


def can_make_hosts() -> bool:
    return os.geteuid() == 0 and shutil.which("ip") is not None


@contextmanager
def namespaces(count: int) -> Iterator[list[tuple[str, str, str]]]:
    """Namespaces with their own loopback, linked to this machine. Yields name, address inside, address of this machine.

    Needs root and iproute2.
    """
    made: list[tuple[str, str, str]] = []
    try:
        for number in range(count):
            name, link = f"airelays-{os.getpid()}-{number}", f"ar{os.getpid() % 100_000}x{number}"
            here, there = f"{NETWORK}.{4 * number + 1}", f"{NETWORK}.{4 * number + 2}"
            _ip("netns", "add", name)
            made.append((name, there, here))
            _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("address", "add", f"{here}/30", "dev", link)
            _ip("link", "set", link, "up")
            _ip("-n", name, "address", "add", f"{there}/30", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", name, "link", "set", device, "up")
        yield made
    finally:
        for name, _, _ in made:
            subprocess.run(["ip", "netns", "delete", name], check=False)  # its link goes with it


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
