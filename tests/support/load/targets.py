"""Gateways in separate processes, and what a measurement takes of their CPU time and memory."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.environment import as_users_run
from tests.support.server import ROOT, free_port

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class BenchTarget:
    name: str
    port: int
    process: subprocess.Popen[bytes]
    token: str = "sk-bench"
    model_prefix: str = ""
    headers: dict[str, str] = field(default_factory=dict)  # of every request, beside the token
    recorded: Callable[[], int] | None = None  # the requests that it has records of; None: it keeps none
    answered: int = 0  # requests of all measurements

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/chat/completions"


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found.extend(int(child) for child in task.read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    total = 0
    for member in family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / CLOCK_TICKS


def rss_mib(pid: int) -> float:
    total = 0
    for member in family(pid):
        for line in Path(f"/proc/{member}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1])
    return total / 1024


def wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SystemExit(f"a process of the bench ended early with {process.returncode}")
        with socket.socket() as probe:
            probe.settimeout(0.5)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("a process of the bench did not start in time")


@contextmanager
def started(
    command: list[str], port: int, log: Path, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=as_users_run(env or {}),
            start_new_session=True,
        )
        try:
            wait_for(port, process)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def prepared(upstream: int, settings: dict[str, str]) -> str:
    """Fill the portal of these settings with what measurements need; returns a token."""
    made = subprocess.run(
        [sys.executable, "-m", "tests.support.load.portal_setup", f"http://127.0.0.1:{upstream}/v1"],
        cwd=ROOT,
        env={**os.environ, **settings},
        check=True,
        capture_output=True,
        text=True,
    )
    return made.stdout.split()[-1]


@contextmanager
def portal(upstream: int, folder: Path, env: dict[str, str] | None = None) -> Iterator[BenchTarget]:
    """Start the product as `serve` does: SQLite, one worker, all defaults."""
    port = free_port()
    settings = {"AIRELAYS_DATA_DIR": str(folder / "portal"), "AIRELAYS_UPSTREAM_ALLOW": "127.0.0.1", **(env or {})}
    token = prepared(upstream, settings)
    command = [sys.executable, "manage.py", "serve", "--port", str(port)]
    with started(command, port, folder / "portal.log", settings) as process:
        database = folder / "portal" / "state.sqlite3"
        yield BenchTarget("portal", port, process, token=token, recorded=lambda: usage_records(database))


def usage_records(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT count(*) FROM relay_usagerecord").fetchone()[0])


def load(target: BenchTarget, case: str, connections: int, requests: int) -> dict[str, Any]:
    """Run one measurement; returns its figures with the gateway's CPU time and memory."""
    command = [
        sys.executable,
        "-m",
        "tests.support.load.generator",
        target.url,
        case,
        "--connections",
        str(connections),
        "--token",
        target.token,
        *(f"--header={name}: {value}" for name, value in target.headers.items()),
    ]
    before = cpu_seconds(target.process.pid)
    done = subprocess.run(
        [*command, "--requests", str(requests)], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    if not done.stdout.strip():
        raise SystemExit(f"the generator failed: {done.stderr[-800:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    target.answered += int(found["requests"])
    time.sleep(0.3)
    used = cpu_seconds(target.process.pid) - before
    found.update(
        target=target.name,
        case=case,
        connections=connections,
        cpu_ms=round(1000 * used / max(found["requests"], 1), 3),
        rss_mib=round(rss_mib(target.process.pid), 1),
    )
    return found
