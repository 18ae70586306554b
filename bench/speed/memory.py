"""Measures the memory of a worker: `python -m bench.speed.memory [--json FILE]`.

A worker of `serve`, one of two, and one that only relays: after the start, after plain answers and streams at 20 and
at 200 connections, and after pages. RSS is what is resident, private what no other process shares; in MiB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from tests.support.load.targets import BenchTarget, family, load, prepared, started
from tests.support.server import ROOT, free_port

_SETUPS: Final = {"serve": [], "serve --workers 2": ["--workers", "2"], "serve --relay-only": ["--relay-only"]}
_CASES: Final = (
    ("plain", 20, 2000), ("burst", 20, 1000), ("plain", 200, 4000), ("burst", 200, 2000), ("paced", 200, 400),
)  # fmt: skip
_PAGES: Final = ("/accounts/login/", "/docs/", "/admin/login/")
_SETTLE_SECONDS: Final = 4.0  # after the start, for the first periodic work


def memory(pid: int) -> tuple[float, float]:
    """RSS and private memory of a process, in MiB."""
    found: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        found[name] = int(value)
    return found["Rss:"] / 1024, (found["Private_Clean:"] + found["Private_Dirty:"]) / 1024


@contextmanager
def _serving(folder: Path, upstream: int, options: list[str]) -> Iterator[BenchTarget]:
    port = free_port()
    settings = {"AIRELAYS_DATA_DIR": str(folder / f"portal-{port}"), "AIRELAYS_UPSTREAM_ALLOW": "127.0.0.1"}
    token = prepared(upstream, settings)
    command = [sys.executable, str(ROOT / "manage.py"), "serve", "--port", str(port), *options]
    with started(command, port, folder / "portal.log", settings) as process:
        target = BenchTarget("portal", port, process, token=token)
        while not _is_ready(port):
            time.sleep(0.2)
        yield target


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=10, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def measured(folder: Path, upstream: int, name: str) -> list[dict[str, Any]]:
    """The figures of one way to serve, of its largest worker."""
    rows: list[dict[str, Any]] = []
    with _serving(folder, upstream, _SETUPS[name]) as target:

        def take(after: str) -> None:
            pids = family(target.process.pid)
            rss, private = max(memory(pid) for pid in (pids[1:] or pids))
            rows.append({"setup": name, "after": after, "rss_mib": round(rss, 1), "private_mib": round(private, 1)})
            print(f"{name:20} {after:20} RSS {rss:6.1f}  private {private:6.1f}", flush=True)

        time.sleep(_SETTLE_SECONDS)
        take("the start")
        for case, connections, requests in _CASES:
            done = load(target, case, connections, requests)
            if done["errors"]:
                raise SystemExit(f"requests failed: {done['first_errors']}")
            take(f"{case} at {connections}")
        if "--relay-only" not in _SETUPS[name]:
            for page in _PAGES * 3:
                httpx.get(f"http://127.0.0.1:{target.port}{page}", timeout=60, trust_env=False, follow_redirects=True)
            take("pages")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="airelays-bench-") as place:
        folder, upstream = Path(place), free_port()
        command = [sys.executable, "-m", "tests.support.load.upstream", str(upstream)]
        with started(command, upstream, folder / "upstream.log"):
            for name in _SETUPS:
                rows += measured(folder, upstream, name)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
