"""Faults that are not the upstream's: clients that leave or never read, a kill, a database or a Redis that is away. Each returns what is wrong, empty when nothing is."""

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
from typing import Any
from urllib.parse import urlsplit

import httpx

from bench import fault_cases
from bench.fault_targets import Target
from bench.run import ROOT, rss_mib, wait_for
from tests.support.upstream import Script, Upstream

_CLOSED = 1.0  # seconds in which the upstream call must be closed


@dataclass(frozen=True)
class Event:
    """`models`: what the upstream does for the models that the case uses. `ours`: it needs the process and database of this portal."""

    name: str
    tells: str
    run: Callable[[Target, Upstream], str]
    models: dict[str, Script]
    ours: bool = False


def body_of(model: str, stream: bool) -> bytes:
    return json.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "Say hello."}]}).encode()


def raw(target: Target, model: str, stream: bool) -> socket.socket:
    """A connection on which a request has been sent, and nothing read."""
    parts = urlsplit(target.base_url)
    body = body_of(model, stream)
    found = socket.create_connection((parts.hostname or "", parts.port or 80), 10)
    found.sendall(
        f"POST {parts.path}/chat/completions HTTP/1.1\r\nhost: {parts.netloc}\r\nauthorization: Bearer {target.token}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    return found


def ask(target: Target, model: str, stream: bool = False, timeout: float = 60) -> fault_cases.Seen:
    """One request, read to its end."""
    began = time.monotonic()
    seen = fault_cases.Seen()
    headers = {"authorization": f"Bearer {target.token}", "content-type": "application/json"}
    pieces: list[bytes] = []
    try:
        with httpx.stream("POST", f"{target.base_url}/chat/completions", content=body_of(model, stream), headers=headers, timeout=timeout, trust_env=False) as answer:
            seen.status, seen.headers = answer.status_code, dict(answer.headers)
            for piece in answer.iter_bytes():
                pieces.append(piece)
    except httpx.HTTPError as error:
        seen.broken = f"{type(error).__name__}: {error}"[:100]
    seen.body, seen.seconds = b"".join(pieces), time.monotonic() - began
    return seen


# -- clients that leave ------------------------------------------------------------------------------------------------


def _leaves(model: str, stream: bool, after: float, until_read: bool, ends: str) -> Callable[[Target, Upstream], str]:
    def run(target: Target, upstream: Upstream) -> str:
        before = upstream.count(model)
        connection = raw(target, model, stream)
        if not _until(lambda: upstream.count(model) > before, 10):
            return "the upstream was not asked"
        request_id = ""
        if until_read:
            head = connection.recv(65536).decode("latin-1").lower()
            request_id = next((line.split(":", 1)[1].strip() for line in head.split("\r\n") if line.startswith("x-request-id:")), "")
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


def _records(target: Target, model: str) -> list[str]:
    assert target.query is not None  # noqa: S101  # asked by the callers
    return [row[0] for row in target.query(f"SELECT end_reason FROM relay_usagerecord WHERE model = '{model}' ORDER BY id")]  # noqa: S608  # names of ours


def _leaves_at_end(target: Target, upstream: Upstream) -> str:
    connection = raw(target, "fault-leaves-at-end", True)
    data = b""
    while b"[DONE]" not in data and (piece := connection.recv(65536)):
        data += piece
    connection.close()
    if target.query is None:
        return "" if b"[DONE]" in data else "no [DONE]"
    if not _until(lambda: bool(_records(target, "fault-leaves-at-end")), 10):
        return "no record"
    return "" if _records(target, "fault-leaves-at-end") == ["completed"] else f"the record says {_records(target, 'fault-leaves-at-end')}"


def _never_reads(target: Target, upstream: Upstream) -> str:
    """What it does not take must not pile up, and must not keep others waiting."""
    before = rss_mib(target.process.pid) if target.process is not None else 0.0
    connection = raw(target, "fault-never-reads", True)
    time.sleep(4)
    other = ask(target, "fault-beside", True)
    grown = rss_mib(target.process.pid) - before if target.process is not None else 0.0
    connection.close()
    closed = upstream.count("fault-never-reads") and upstream.last("fault-never-reads").closed.wait(10)
    wrong = fault_cases.whole(other)
    if wrong:
        return f"another client: {wrong}"
    if grown > 40:
        return f"{grown:.0f} MiB more memory after 4 s"
    return "" if closed else "its upstream call stayed open"


# -- the portal's own faults -------------------------------------------------------------------------------------------


def _kill(target: Target, upstream: Upstream) -> str:
    """kill -9 under load: every whole answer has exactly one record, and the books balance after the restart."""
    assert target.process is not None and target.query is not None  # noqa: S101  # `ours`
    whole: list[str] = []
    stop = threading.Event()

    def client(stream: bool) -> None:
        while not stop.is_set():
            seen = ask(target, "fault-beside", stream, 10)
            if not fault_cases.whole(seen):
                whole.append(seen.headers["x-request-id"])

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
    lost = [one for one in whole if rows.get(one) != 1]
    if lost or len(whole) < 20:
        return f"{len(lost)} of {len(whole)} whole answers without exactly one record"
    return books(target)


def restart(target: Target) -> None:
    target.process = subprocess.Popen(
        [sys.executable, "manage.py", "serve", "--port", str(target.port)], cwd=ROOT, env={**os.environ, **target.env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    wait_for(target.port, target.process)


def books(target: Target) -> str:
    """Empty when `ledger verify` finds nothing."""
    done = subprocess.run([sys.executable, "manage.py", "ledger", "verify"], cwd=ROOT, env={**os.environ, **target.env}, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"the books differ: {done.stdout.strip().splitlines()[-1]}"


def _database_away(target: Target, upstream: Upstream) -> str:
    """For ten seconds nothing can be written. Whole answers have records afterwards; the others were told to come back."""
    assert target.query is not None  # noqa: S101  # `ours`
    seen: list[fault_cases.Seen] = []
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
    wrong = [one for one in seen if fault_cases.whole(one) and fault_cases.refused(503, code="relay_unavailable", retry_after=True)(one)]
    if wrong:
        return f"{len(wrong)} of {len(seen)}: status {wrong[0].status} {wrong[0].broken} {wrong[0].error.get('code', '')}"
    answered = [one.headers["x-request-id"] for one in seen if not fault_cases.whole(one)]
    missing = [one for one in answered if target.record(one, 20) is None]
    if missing or fault_cases.whole(seen[-1]):
        return f"{len(missing)} of {len(answered)} whole answers without a record" if missing else "it did not recover"
    return books(target)


def _lock_sqlite(target: Target, seconds: float) -> None:
    connection = sqlite3.connect(os.path.join(target.env["AIRELAYS_DATA_DIR"], "state.sqlite3"), timeout=30, isolation_level=None)  # noqa: PTH118  # a string from the environment
    try:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        connection.execute("ROLLBACK")
    finally:
        connection.close()


def _refuse_postgresql(target: Target, seconds: float) -> None:
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


_C = fault_cases
_SHUT = "its upstream call closed within 1 s"
EVENTS = (
    Event(
        "client leaves before the headers",
        _SHUT,
        _leaves("fault-leaves-before", False, 0.5, False, "client_gone"),
        {"fault-leaves-before": _C.silent},
    ),
    Event(
        "client leaves before the headers of a stream",
        _SHUT,
        _leaves("fault-leaves-before-stream", True, 0.5, False, "client_gone"),
        {"fault-leaves-before-stream": _C.silent},
    ),
    Event(
        "client leaves during a plain answer",
        _SHUT,
        _leaves("fault-leaves-plain", False, 0.5, False, "client_gone"),
        {"fault-leaves-plain": _C.half_a_plain_answer},
    ),
    Event("client leaves during a stream", _SHUT, _leaves("fault-leaves-stream", True, 0.3, True, "client_gone"), {"fault-leaves-stream": _C.paced}),
    Event("client leaves at the end", "a record of a completed answer", _leaves_at_end, {"fault-leaves-at-end": _C.fine}),
    Event("client never reads", "others served, memory flat", _never_reads, {"fault-never-reads": _C.endless, "fault-beside": _C.fine}),
    Event("kill -9", "every whole answer has one record; the books balance", _kill, {"fault-beside": _C.fine}, ours=True),
    Event("database away for 10 s", "whole answers, or 503 with Retry-After; nothing lost", _database_away, {"fault-beside": _C.fine}, ours=True),
)
