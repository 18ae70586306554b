"""Faults other than the upstream's: clients that disconnect or never read, a kill, an unreachable database.

Each function returns what is wrong, empty when nothing is.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from bench.faults import cases as fault_cases
from bench.faults import scripts
from bench.faults.floods import MOST_DELAY, beside_floods
from bench.faults.targets import FaultTarget
from tests.support.load.targets import rss_mib, wait_for
from tests.support.server import ROOT
from tests.support.upstream import Script, Upstream

_CLOSED = 1.0  # seconds in which the upstream call must be closed


@dataclass(frozen=True)
class FaultEvent:
    """One fault of a client or of the portal."""

    name: str
    expected: str  # what must happen, in words
    run: Callable[[FaultTarget, Upstream], str]
    models: dict[str, Script]  # the upstream's scripts by model
    needs_database: bool = False  # and the process of this portal


def body_of(model: str, stream: bool) -> bytes:
    return json.dumps(
        {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Say hello."}]}
    ).encode()


def raw(target: FaultTarget, model: str, stream: bool) -> socket.socket:
    """A connection on which a request has been sent and nothing read."""
    parts = urlsplit(target.base_url)
    body = body_of(model, stream)
    found = socket.create_connection((parts.hostname or "", parts.port or 80), 10)
    found.sendall(
        f"POST {parts.path}/chat/completions HTTP/1.1\r\nhost: {parts.netloc}\r\nauthorization: Bearer "
        f"{target.token}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    return found


def ask(target: FaultTarget, model: str, stream: bool = False, timeout: float = 60) -> fault_cases.ClientAnswer:
    """Send one request and read its answer to the end."""
    began = time.monotonic()
    seen = fault_cases.ClientAnswer()
    headers = {"authorization": f"Bearer {target.token}", "content-type": "application/json"}
    pieces: list[bytes] = []
    try:
        with httpx.stream(
            "POST",
            f"{target.base_url}/chat/completions",
            content=body_of(model, stream),
            headers=headers,
            timeout=timeout,
            trust_env=False,
        ) as answer:
            seen.status, seen.headers = answer.status_code, dict(answer.headers)
            for piece in answer.iter_bytes():
                pieces.append(piece)
    except httpx.HTTPError as error:
        seen.broken = f"{type(error).__name__}: {error}"[:100]
    seen.body, seen.seconds = b"".join(pieces), time.monotonic() - began
    return seen


# -- clients that disconnect -------------------------------------------------------------------------------------------


def _disconnects(
    model: str, stream: bool, after: float, until_read: bool, ends: str
) -> Callable[[FaultTarget, Upstream], str]:
    def run(target: FaultTarget, upstream: Upstream) -> str:
        before = upstream.count(model)
        connection = raw(target, model, stream)
        if not _until(lambda: upstream.count(model) > before, 10):
            return "the upstream was not asked"
        request_id = ""
        if until_read:
            head = connection.recv(65536).decode("latin-1").lower()
            request_id = next(
                (line.split(":", 1)[1].strip() for line in head.split("\r\n") if line.startswith("x-request-id:")), ""
            )
        time.sleep(after)
        connection.close()
        left = time.monotonic()
        call = upstream.last(model)
        if not call.closed.wait(10):
            return "the upstream call was still open after 10 s"
        took = time.monotonic() - left
        if took > _CLOSED:
            return f"the upstream call was closed after {took:.1f} s"
        if target.query is None:
            return ""
        if not _until(lambda: bool(_records(target, model)), 10):
            return "no record"
        found = target.record(request_id) if request_id else None
        reason = found["end_reason"] if found else _records(target, model)[-1]
        return "" if reason == ends else f"the record says {reason}"

    return run


def _records(target: FaultTarget, model: str) -> list[str]:
    assert target.query is not None  # noqa: S101  # checked by the callers
    sql = f"SELECT end_reason FROM relay_usagerecord WHERE model = '{model}' ORDER BY id"  # noqa: S608  # own names
    return [row[0] for row in target.query(sql)]


def _disconnects_at_end(target: FaultTarget, upstream: Upstream) -> str:
    connection = raw(target, "fault-leaves-at-end", True)
    data = b""
    while b"[DONE]" not in data and (piece := connection.recv(65536)):
        data += piece
    connection.close()
    if target.query is None:
        return "" if b"[DONE]" in data else "no [DONE]"
    if not _until(lambda: bool(_records(target, "fault-leaves-at-end")), 10):
        return "no record"
    return (
        ""
        if _records(target, "fault-leaves-at-end") == ["completed"]
        else f"the record says {_records(target, 'fault-leaves-at-end')}"
    )


def _never_reads(target: FaultTarget, upstream: Upstream) -> str:
    """Unread data must not accumulate, and must not delay other clients."""
    before = rss_mib(target.process.pid) if target.process is not None else 0.0
    connection = raw(target, "fault-never-reads", True)
    time.sleep(4)
    other = ask(target, "fault-beside", True)
    grown = rss_mib(target.process.pid) - before if target.process is not None else 0.0
    connection.close()
    closed = upstream.count("fault-never-reads") and upstream.last("fault-never-reads").closed.wait(10)
    wrong = fault_cases.complete(other)
    if wrong:
        return f"another client: {wrong}"
    if grown > 40:
        return f"{grown:.0f} MiB more memory after 4 s"
    return "" if closed else "its upstream call stayed open"


# -- the portal's own faults -------------------------------------------------------------------------------------------


def _kill(target: FaultTarget, upstream: Upstream) -> str:
    """kill -9 under load: every complete answer has exactly one record, and the ledger balances after the restart."""
    assert target.process is not None and target.query is not None  # noqa: S101  # `needs_database`
    complete: list[str] = []
    stop = threading.Event()

    def client(stream: bool) -> None:
        while not stop.is_set():
            seen = ask(target, "fault-beside", stream, 10)
            if not fault_cases.complete(seen):
                complete.append(seen.headers["x-request-id"])

    threads = [threading.Thread(target=client, args=(index % 2 == 0,)) for index in range(10)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    os.killpg(target.process.pid, signal.SIGKILL)
    target.process.wait()
    stop.set()
    for thread in threads:
        thread.join(20)
    restart(target)
    rows = dict(target.query("SELECT request_id, count(*) FROM relay_usagerecord GROUP BY request_id"))
    lost = [one for one in complete if rows.get(one) != 1]
    if lost or len(complete) < 20:
        return f"{len(lost)} of {len(complete)} whole answers without exactly one record"
    return verify_ledger(target)


def restart(target: FaultTarget) -> None:
    target.process = subprocess.Popen(
        [sys.executable, "manage.py", "serve", "--port", str(target.port)],
        cwd=ROOT,
        env={**os.environ, **target.env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(target.port, target.process)


def verify_ledger(target: FaultTarget) -> str:
    """Run `ledger verify`; returns its last line when it finds a difference."""
    done = subprocess.run(
        [sys.executable, "manage.py", "ledger", "verify"],
        cwd=ROOT,
        env={**os.environ, **target.env},
        capture_output=True,
        text=True,
    )
    return "" if done.returncode == 0 else f"the books differ: {done.stdout.strip().splitlines()[-1]}"


def _database_away(target: FaultTarget, upstream: Upstream) -> str:
    """For ten seconds nothing can be written: complete answers get records, others 503 with Retry-After."""
    assert target.query is not None  # noqa: S101  # `needs_database`
    seen: list[fault_cases.ClientAnswer] = []
    stop = threading.Event()

    def client() -> None:
        while not stop.is_set():
            seen.append(ask(target, "fault-beside", False, 30))
            time.sleep(0.2)

    threads = [threading.Thread(target=client) for _ in range(5)]
    away = _lock_sqlite if not target.env.get("AIRELAYS_DATABASE_URL") else _refuse_postgresql
    for thread in threads:
        thread.start()
    time.sleep(1)
    away(target, 10)
    time.sleep(3)
    stop.set()
    for thread in threads:
        thread.join(40)
    wrong = [
        one
        for one in seen
        if fault_cases.complete(one) and fault_cases.refused_with(503, code="relay_unavailable", retry_after=True)(one)
    ]
    if wrong:
        return (
            f"{len(wrong)} of {len(seen)}: status {wrong[0].status} {wrong[0].broken} {wrong[0].error.get('code', '')}"
        )
    answered = [one.headers["x-request-id"] for one in seen if not fault_cases.complete(one)]
    missing = [one for one in answered if target.record(one, 20) is None]
    if missing or fault_cases.complete(seen[-1]):
        return f"{len(missing)} of {len(answered)} whole answers without a record" if missing else "it did not recover"
    return verify_ledger(target)


def _lock_sqlite(target: FaultTarget, seconds: float) -> None:
    file = Path(target.env["AIRELAYS_DATA_DIR"]) / "state.sqlite3"
    connection = sqlite3.connect(file, timeout=30, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def _refuse_postgresql(target: FaultTarget, seconds: float) -> None:
    import psycopg

    url = target.env["AIRELAYS_DATABASE_URL"]
    server, _, name = url.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        try:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            time.sleep(seconds)
        finally:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())


def _until(found: Callable[[], Any], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not found():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


_UPSTREAM_CLOSED = "its upstream call closed within 1 s"


def _beside_floods(target: FaultTarget, _: Upstream) -> str:
    if target.process is None:
        return "the process of the portal is not known"

    def good() -> str:
        seen = ask(target, "fault-beside-floods")
        return fault_cases.complete(seen)

    return beside_floods(target.base_url, target.process.pid, good)


EVENTS = (
    FaultEvent(
        "client leaves before the headers",
        _UPSTREAM_CLOSED,
        _disconnects("fault-leaves-before", False, 0.5, False, "client_gone"),
        {"fault-leaves-before": scripts.silent},
    ),
    FaultEvent(
        "client leaves before the headers of a stream",
        _UPSTREAM_CLOSED,
        _disconnects("fault-leaves-before-stream", True, 0.5, False, "client_gone"),
        {"fault-leaves-before-stream": scripts.silent},
    ),
    FaultEvent(
        "client leaves during a plain answer",
        _UPSTREAM_CLOSED,
        _disconnects("fault-leaves-plain", False, 0.5, False, "client_gone"),
        {"fault-leaves-plain": scripts.half_a_plain_answer},
    ),
    FaultEvent(
        "client leaves during a stream",
        _UPSTREAM_CLOSED,
        _disconnects("fault-leaves-stream", True, 0.3, True, "client_gone"),
        {"fault-leaves-stream": scripts.slow_stream},
    ),
    FaultEvent(
        "client leaves at the end",
        "a record of a completed answer",
        _disconnects_at_end,
        {"fault-leaves-at-end": scripts.healthy},
    ),
    FaultEvent(
        "client never reads",
        "others served, memory flat",
        _never_reads,
        {"fault-never-reads": scripts.endless, "fault-beside": scripts.healthy},
    ),
    FaultEvent(
        "a good request beside a flood",
        f"at most {1000 * MOST_DELAY:.0f} ms later beside floods of headers, bodies, connections and pages without a "
        "token; memory given back",
        _beside_floods,
        {"fault-beside-floods": scripts.healthy},
        needs_database=True,
    ),
    FaultEvent(
        "kill -9",
        "every whole answer has one record; the books balance",
        _kill,
        {"fault-beside": scripts.healthy},
        needs_database=True,
    ),
    FaultEvent(
        "database away for 10 s",
        "whole answers, or 503 with Retry-After; nothing lost",
        _database_away,
        {"fault-beside": scripts.healthy},
        needs_database=True,
    ),
)
