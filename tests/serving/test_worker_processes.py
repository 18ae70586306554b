"""Several worker processes, and the one that watches over them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from portal.serving.workers import supervisor
from portal.serving.workers.supervisor import CANNOT_START, Supervisor
from tests.support.asserts import until
from tests.support.load.targets import family, rss_mib
from tests.support.server import Server, serving

_SERVES = "import socket, sys, time; words = socket.socket(fileno=int(sys.argv[2])); words.send(b'r'); {then}"


def children(pid: int) -> list[int]:
    return [one for one in family(pid) if one != pid]


def alone(pid: int) -> float:
    """The memory of a process without its children, in MiB."""
    return rss_mib(pid) - sum(rss_mib(child) for child in children(pid))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("workers")
    env = {"AIRELAYS_DATA_DIR": str(folder / "data"), "AIRELAYS_DATABASE_URL": ""}
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], env={**os.environ, **env}, check=True)
    with serving(folder / "log", "--workers", "2", env=env) as server:
        yield server


def test_the_supervisor_is_small_and_replaces_a_worker_that_dies(two: Server) -> None:
    supervisor_pid = two.process.pid
    assert alone(supervisor_pid) < 30
    first = children(supervisor_pid)
    assert len(first) == 2
    os.kill(first[0], signal.SIGKILL)
    until(lambda: len(children(supervisor_pid)) == 2 and first[0] not in children(supervisor_pid))
    assert first[1] in children(supervisor_pid)
    assert f"worker {first[0]} has ended with -9" in two.log.read_text()


def test_workers_end_with_a_supervisor_that_is_killed(two: Server) -> None:
    workers = children(two.process.pid)
    os.kill(two.process.pid, signal.SIGKILL)
    two.process.wait(60)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))


@contextmanager
def supervised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, then: str, workers: int = 1, patience: float = 60
) -> Iterator[Supervisor]:
    """A supervisor of workers that say that they serve, and then do something else."""
    program = tmp_path / "worker.py"
    program.write_text(_SERVES.format(then=then))
    monkeypatch.setattr(supervisor, "_WORKER", str(program))
    monkeypatch.setattr(supervisor, "_LOOK_SECONDS", 0.02)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        found = Supervisor(listening.fileno(), workers, patience, as_json=True)
        thread = threading.Thread(target=found.run)
        # Signals are those of the main thread.
        monkeypatch.setattr(signal, "signal", lambda number, handler: None)
        monkeypatch.setattr(signal, "set_wakeup_fd", lambda number, warn_on_full_buffer: -1)
        thread.start()
        try:
            until(lambda: len(found._workers) == workers)
            yield found
        finally:
            found._received.append(signal.SIGTERM)
            thread.join(30)
            assert not thread.is_alive() and not any(worker.process.poll() is None for worker in found._workers)


def test_a_worker_that_does_not_answer_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with supervised(monkeypatch, tmp_path, "time.sleep(600)", patience=0.3) as found:
        hung = found._workers[0].process
        assert hung.wait(30) == -signal.SIGKILL
        until(lambda: found._workers[0].process is not hung)


def test_all_end_when_a_worker_cannot_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with supervised(monkeypatch, tmp_path, f"sys.exit({CANNOT_START})", workers=2) as found:
        until(lambda: found.status == CANNOT_START)


def test_all_end_when_none_has_ever_served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.serving.test_worker_processes._SERVES", "import sys; sys.exit(1)")
    with supervised(monkeypatch, tmp_path, "", workers=2) as found:
        until(lambda: found.status == CANNOT_START)


def test_each_worker_begins_before_the_one_that_it_replaces_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with supervised(monkeypatch, tmp_path, "time.sleep(600)", workers=2) as found:
        until(lambda: all(worker.ready for worker in found._workers))
        old = list(found._workers)
        found._received.append(signal.SIGHUP)
        until(lambda: not {worker.pid for worker in found._workers} & {worker.pid for worker in old})
        until(lambda: all(worker.process.poll() is not None for worker in old))
        assert all(new.started < time.monotonic() and new.ready for new in found._workers)


def test_one_more_and_one_less(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with supervised(monkeypatch, tmp_path, "time.sleep(600)") as found:
        found._received.append(signal.SIGTTIN)
        until(lambda: len(found._workers) == 2)
        found._received.append(signal.SIGTTOU)
        until(lambda: len(found._workers) == 1)
