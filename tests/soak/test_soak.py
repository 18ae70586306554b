"""The long tests, run by `make soak`: bounded in time, on 127.0.0.1 only, they print what they measured."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.load.billed import kill_rounds as kill_rounds_with_money
from tests.support.load.recorded import kill_rounds
from tests.support.load.targets import BenchTarget, load, portal, rss_mib, started
from tests.support.server import ROOT, free_port
from tests.support.upstream import Upstream

pytestmark = pytest.mark.soak
_KEPT = 65  # seconds until idle connections to upstreams have been given up: kept for 30, looked at every 30


@contextmanager
def _bench(folder: Path) -> Iterator[BenchTarget]:
    """The portal before the bench's own upstream."""
    port = free_port()
    with (
        started([sys.executable, "-m", "tests.support.load.upstream", str(port)], port, folder / "upstream.log"),
        portal(port, folder) as target,
    ):
        yield target


def test_twenty_kills_under_load(tmp_path: Path, upstream: Upstream) -> None:
    received = kill_rounds(tmp_path, upstream, 20)
    print(f"\n20 kills, {received} whole answers, every one with exactly one record")
    assert received > 20 * 12


def test_fifty_clients_for_a_minute(tmp_path: Path) -> None:
    """SQLite, one worker: no error of ours, and nobody is told that the database is locked."""
    with _bench(tmp_path) as target:
        command = [
            sys.executable,
            "-m",
            "tests.support.load.generator",
            target.url,
            "plain",
            "--connections",
            "50",
            "--token",
            target.token,
        ]
        until, total = time.monotonic() + 60, 0
        while time.monotonic() < until:
            for case in ("plain", "burst"):
                done = subprocess.run(
                    [*command[:4], case, *command[5:], "--requests", "4000"],
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                    timeout=120,
                )
                found = json.loads(done.stdout)
                assert found["errors"] == 0, found
                total += found["requests"]
        log = (tmp_path / "portal.log").read_text()
    assert "locked" not in log and "Traceback" not in log and "ERROR" not in log
    print(f"\n50 clients, {total} requests in a minute, no error")


def test_memory_is_flat_over_200_000_requests_beside_a_reader_that_never_reads(tmp_path: Path) -> None:
    with _bench(tmp_path) as target, socket.create_connection(("127.0.0.1", target.port)) as sleeper:
        body = json.dumps({"model": "endless", "stream": True, "messages": [{"role": "user", "content": "x"}]}).encode()
        sleeper.sendall(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
            f"{target.token}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
            + body
        )
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
    print(
        f"\n50 kills, {received} whole answers, every one billed once; the books balanced after each, nothing left "
        "reserved"
    )
    assert received > 50 * 12


def test_thirty_minutes_of_faults_and_disconnects_leave_nothing_behind(tmp_path: Path) -> None:
    """500 streams at once over three channels whose upstreams fail in every way, clients that leave; SOAK_MINUTES
    shortens it.
    """
    minutes = float(os.environ.get("SOAK_MINUTES", "30"))
    with chaos(tmp_path) as target:
        database = tmp_path / "portal" / "state.sqlite3"
        command = [sys.executable, "-m", "tests.soak.clients", target.url, target.token]
        subprocess.run(
            [*command, "chaos", "--connections", "50", "--seconds", "15"], cwd=ROOT, check=True, capture_output=True
        )
        time.sleep(_KEPT)
        calm = state(target, database)
        until, ended, rows = time.monotonic() + minutes * 60, Counter[str](), []
        clients = subprocess.Popen(
            [*command, "chaos", "--connections", "500", "--seconds", str(minutes * 60)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        while time.monotonic() < until:
            time.sleep(min(60.0, minutes * 60 / 5))
            rows.append(rss_mib(target.process.pid))
        out, _ = clients.communicate(timeout=120)
        ended.update(json.loads(out))
        time.sleep(_KEPT)
        after = state(target, database)
        # Slots: as many streams at once as the token may have; one that was never freed would be missing now.
        again = json.loads(
            subprocess.run(
                [*command, "paced", "--connections", "520", "--seconds", "4", "--once"],
                cwd=ROOT,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        time.sleep(3)
        held = sqlite(database, "SELECT count(*), coalesce(sum(amount), 0) FROM relay_reservation WHERE amount > 0")[0]
        verify = subprocess.run(
            [sys.executable, "manage.py", "ledger", "verify"],
            cwd=ROOT,
            env={**os.environ, **target_env(tmp_path)},
            capture_output=True,
            text=True,
        )
        records = sqlite(database, "SELECT end_reason, count(*) FROM relay_usagerecord GROUP BY 1 ORDER BY 2 DESC")
        log = (tmp_path / "portal.log").read_text()
    print(f"\n{minutes:.0f} minutes, {sum(ended.values())} streams: {dict(ended)}")
    print("records:", dict(records))
    print("RSS in MiB each minute:", " ".join(f"{size:.0f}" for size in rows))
    print("before:", calm, "after:", after, "held:", held, "slots:", again)
    silent = {"cut off", "hung", "ended without a word", "an error and [DONE]", "no answer"}
    bad = {name: count for name, count in ended.items() if name in silent or name.endswith("without a reason")}
    assert not bad and ended["whole"] > 100
    warm = rows[len(rows) // 5 :]
    assert max(warm) - min(warm) <= 20
    assert after["running"] == 0 and after["tasks"] <= calm["tasks"] + 3 and after["files"] <= calm["files"] + 5
    assert set(again) <= {"whole", "left"}, "a slot was not freed"
    assert held == (0, 0)
    assert verify.returncode == 0, verify.stdout
    assert "Traceback" not in log and "ERROR" not in log, log[-3000:]


def target_env(folder: Path) -> dict[str, str]:
    return {
        "AIRELAYS_DATA_DIR": str(folder / "portal"),
        "AIRELAYS_UPSTREAM_ALLOW": "127.0.0.1",
        "AIRELAYS_IDLE_TIMEOUT": "5",
        "AIRELAYS_FIRST_BYTE_TIMEOUT": "3",
        "AIRELAYS_JOBS": "false",
    }


@contextmanager
def chaos(folder: Path) -> Iterator[BenchTarget]:
    """The portal before three upstreams in trouble and one that is well, of a lower priority."""
    ports = [free_port() for _ in range(4)]
    with ExitStack() as stack:
        for index, port in enumerate(ports):
            stack.enter_context(
                started(
                    [sys.executable, "-m", "tests.support.load.upstream", str(port)],
                    port,
                    folder / f"upstream{index}.log",
                )
            )
        target = stack.enter_context(portal(ports[3], folder, target_env(folder)))
        more = _MORE % ([f"http://127.0.0.1:{port}/v1" for port in ports[:3]],)
        subprocess.run(
            [sys.executable, "manage.py", "shell", "-v", "0", "-c", more],
            cwd=ROOT,
            env={**os.environ, **target_env(folder)},
            check=True,
        )
        yield target


_MORE = """
from relay.models import ApiKey, Channel, ChannelModel, Model, ModelPrice, Token
model = Model.objects.create(name="chaos", is_open=True)
ModelPrice.objects.create(model=model, input=1, output=2)
for index, base in enumerate(%r):
    channel = Channel.objects.create(name=f"chaos {index}", provider="openai", base_url=base, priority=5)
    for number in range(3):
        key = ApiKey(channel=channel)
        key.set_secret(f"sk-upstream-{index}-{number}-0123456789abcdef")
        key.save()
    ChannelModel.objects.create(channel=channel, model=model)
ChannelModel.objects.create(channel=Channel.objects.get(name="Bench"), model=model, upstream_name="calm")
Token.objects.update(max_concurrency=520)
for token in Token.objects.all():
    token.save()
"""


def state(target: BenchTarget, database: Path) -> dict[str, Any]:
    """What the worker says of itself, newer than now."""
    asked = time.time()
    while True:
        rows = sqlite(database, "SELECT seen_at, state FROM relay_worker ORDER BY seen_at DESC LIMIT 1")
        if rows and datetime.fromisoformat(rows[0][0]).replace(tzinfo=UTC).timestamp() > asked:
            found: dict[str, Any] = json.loads(rows[0][1])
            return found
        assert time.time() < asked + 60, "the worker says nothing"
        time.sleep(1)


def sqlite(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path, timeout=30)) as connection:
        return connection.execute(sql).fetchall()
