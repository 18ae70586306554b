"""The long tests, run by `make soak`: bounded in time, on 127.0.0.1 only, they print what they measured."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.run import Target, free_port, load, portal, rss_mib, started
from tests.server import ROOT
from tests.test_durability import kill_rounds
from tests.test_processes import kill_rounds as kill_rounds_with_money
from tests.upstream import Upstream

pytestmark = pytest.mark.soak


@contextmanager
def _bench(folder: Path) -> Iterator[Target]:
    """The portal before the bench's own upstream."""
    port = free_port()
    with started([sys.executable, "-m", "bench.upstream", str(port)], port, folder / "upstream.log"), portal(port, folder) as target:
        yield target


def test_twenty_kills_under_load(tmp_path: Path, upstream: Upstream) -> None:
    received = kill_rounds(tmp_path, upstream, 20)
    print(f"\n20 kills, {received} whole answers, every one with exactly one record")
    assert received > 1000


def test_fifty_clients_for_a_minute(tmp_path: Path) -> None:
    """SQLite, one worker: no error of ours, and nobody is told that the database is locked."""
    with _bench(tmp_path) as target:
        command = [sys.executable, "-m", "bench.load", target.url, "plain", "--connections", "50", "--token", target.token]
        until, total = time.monotonic() + 60, 0
        while time.monotonic() < until:
            for case in ("plain", "burst"):
                done = subprocess.run([*command[:4], case, *command[5:], "--requests", "4000"], cwd=ROOT, capture_output=True, text=True, timeout=120)
                found = json.loads(done.stdout)
                assert found["errors"] == 0, found
                total += found["requests"]
        log = (tmp_path / "portal.log").read_text()
    assert "locked" not in log and "Traceback" not in log and "ERROR" not in log
    print(f"\n50 clients, {total} requests in a minute, no error")


def test_memory_is_flat_over_200_000_requests_beside_a_reader_that_never_reads(tmp_path: Path) -> None:
    with _bench(tmp_path) as target, socket.create_connection(("127.0.0.1", target.port)) as sleeper:
        body = json.dumps({"model": "endless", "stream": True, "messages": [{"role": "user", "content": "x"}]}).encode()
        sleeper.sendall(f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {target.token}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        load(target, "burst", 200, 4000)
        load(target, "plain", 200, 16000)  # warm
        sizes = [rss_mib(target.process.pid)]
        for _ in range(9):
            assert load(target, "plain", 50, 15000)["errors"] == 0
            assert load(target, "burst", 50, 5000)["errors"] == 0
            sizes.append(rss_mib(target.process.pid))
    print("\nRSS in MiB after each 20,000 requests:", " ".join(f"{size:.1f}" for size in sizes))
    assert max(sizes) - min(sizes) <= 10
    assert max(sizes) <= 130


def test_fifty_kills_leave_the_books_balanced(tmp_path: Path, upstream: Upstream) -> None:
    received = kill_rounds_with_money(tmp_path, upstream, 50)
    print(f"\n50 kills, {received} whole answers, every one billed once; the books balanced after each, nothing left reserved")
    assert received > 1000
