"""Measures a large batch beside plain requests: `python -m bench.speed.batches [--lines 50000] [--database URL]`.

The upstream answers at once. A plain request is sent each second, before the batch and beside it. At the end every line
has to be in the output file once, and the ledger has to balance; otherwise the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.load.targets import BenchTarget, cpu_seconds, portal, rss_mib, started
from tests.support.server import ROOT, free_port

_ENDED = ("completed", "failed", "expired", "cancelled")
_BODY = {"model": "plain", "messages": [{"role": "user", "content": "Say hello."}]}
_TENTHS = 10


@dataclass
class _Seen:
    """What was seen of the portal while the batch ran."""

    plain: list[float] = field(default_factory=list)  # seconds of each plain request
    done: list[tuple[int, float, float]] = field(default_factory=list)  # lines, CPU seconds, seconds since the start
    rss: list[float] = field(default_factory=list)  # MiB


class _Portal:
    """The portal that is measured, as its client sees it."""

    def __init__(self, target: BenchTarget) -> None:
        self.pid, self.url = target.process.pid, f"http://127.0.0.1:{target.port}/v1"
        headers = {"authorization": f"Bearer {target.token}"}
        self.client = httpx.Client(headers=headers, timeout=300, trust_env=False)

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.client.request(method, self.url + path, **options).raise_for_status()

    def plain(self) -> float:
        """Seconds of a plain request."""
        begun = time.monotonic()
        self.ask("POST", "/chat/completions", json=_BODY)
        return time.monotonic() - begun

    def submit(self, lines: int) -> str:
        content = b"\n".join(
            json.dumps({"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": _BODY}).encode()
            for n in range(lines)
        )
        file = {"file": ("lines.jsonl", content)}
        stored = self.ask("POST", "/files", data={"purpose": "batch"}, files=file).json()
        body = {"input_file_id": stored["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return str(self.ask("POST", "/batches", json=body).json()["id"])

    def watch(self, batch_id: str, seconds: float, seen: _Seen) -> dict[str, Any]:
        """Look at the batch each second until it has ended, or for so long. Returns it as it is then."""
        begun, cpu = time.monotonic(), cpu_seconds(self.pid)
        while True:
            next_at = time.monotonic() + 1
            seen.plain.append(self.plain())
            batch: dict[str, Any] = self.ask("GET", f"/batches/{batch_id}").json()
            took = time.monotonic() - begun
            seen.done.append((batch["request_counts"]["completed"], cpu_seconds(self.pid) - cpu, took))
            seen.rss.append(rss_mib(self.pid))
            if batch["status"] in _ENDED or took > seconds:
                return batch
            time.sleep(max(0.0, next_at - time.monotonic()))


def _quantiles(took: list[float]) -> str:
    return f"p50 {1000 * statistics.median(took):.1f} ms, p99 {1000 * sorted(took)[int(0.99 * len(took))]:.1f} ms"


def _tenths(seen: _Seen, lines: int) -> str:
    """CPU ms for each line, in the first tenth of the lines, the second and so on."""
    found: list[str] = []
    before = (0, 0.0)
    for part in range(1, _TENTHS + 1):
        reached = next(((done, cpu) for done, cpu, _ in seen.done if done * _TENTHS >= part * lines), None)
        if reached is not None and reached[0] > before[0]:
            found.append(f"{1000 * (reached[1] - before[1]) / (reached[0] - before[0]):.2f}")
            before = reached
    return ", ".join(found)


def _faults(client: _Portal, batch: dict[str, Any], lines: int) -> list[str]:
    """What is wrong with the results of a batch."""
    if batch["status"] != "completed":
        return [f"the batch is {batch['status']}: {batch['request_counts']}"]
    output = client.ask("GET", f"/files/{batch['output_file_id']}/content").text.splitlines()
    answers = [json.loads(line) for line in output]
    names = Counter(answer["custom_id"] for answer in answers)
    found = [f"{batch['request_counts']}"] if batch["request_counts"]["completed"] != lines else []
    found += [f"{name} stands there {number} times" for name, number in names.items() if number != 1][:10]
    found += [f"{len(names)} lines of {lines} are there"] if set(names) != {f"r{n}" for n in range(lines)} else []
    wrong = sum(answer["response"]["body"]["usage"]["completion_tokens"] != 50 for answer in answers)
    return [*found, *([f"{wrong} answers are others"] if wrong else [])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=50_000)
    parser.add_argument("--minutes", type=float, default=25, help="after which the batch is looked at no longer")
    parser.add_argument("--database", default="", help="URL of an empty database; default: SQLite")
    options = parser.parse_args()
    port = free_port()
    upstream = [sys.executable, "-m", "tests.support.load.upstream", str(port)]
    env = {"AIRELAYS_DATABASE_URL": options.database} if options.database else {}
    with tempfile.TemporaryDirectory() as name:
        folder, seen, alone = Path(name), _Seen(), []
        with started(upstream, port, folder / "upstream.log"), portal(port, folder, env) as target:
            client = _Portal(target)
            for _ in range(20):
                alone.append(client.plain())
                time.sleep(0.2)
            print(f"load average {os.getloadavg()[0]:.1f}; {rss_mib(client.pid):.0f} MiB before", flush=True)
            batch = client.watch(client.submit(options.lines), 60 * options.minutes, seen)
            _, cpu, took = seen.done[-1]
            print(f"{options.lines} lines, {took:.0f} s, CPU {cpu:.0f} s, load average {os.getloadavg()[0]:.1f}")
            print(f"CPU ms a line, by tenths: {_tenths(seen, options.lines)}")
            print(f"plain requests alone: {_quantiles(alone)}; beside the batch: {_quantiles(seen.plain)}")
            print(f"memory: {max(seen.rss):.0f} MiB at most, {rss_mib(client.pid):.0f} MiB afterwards", flush=True)
            faults = _faults(client, batch, options.lines)
        settings = {**os.environ, "AIRELAYS_DATA_DIR": str(folder / "portal"), **env}
        books = subprocess.run([sys.executable, "manage.py", "ledger", "verify"], cwd=ROOT, env=settings)
    if faults or books.returncode:
        sys.exit("\n".join(faults) or "the ledger does not balance")


if __name__ == "__main__":
    main()
