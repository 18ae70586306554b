"""Measures what it costs to count limits in Redis: `python -m bench.speed.limits [--requests 6000] [--repeats 5]`.

Two portals, one of which counts in memory and one in Redis, are asked in turn, with the limits of the other benchmarks:
requests and tokens a minute and requests at once. Of the CPU time per request, the least of all repeats counts, so that
other work on the machine changes little. Exits with 1 when a ratio is above its bound, or a request failed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from redis import Redis

from tests.support.load.targets import BenchTarget, load, portal, started
from tests.support.server import free_port

BOUNDS: Final = {1: 1.3, 20: 1.15, 200: 1.15}  # of the CPU with Redis to that in memory, by connections
KINDS: Final = ("memory", "redis")


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis that saves nothing; returns its address."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("limits: redis-server is not installed; “make services” installs it")
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with started(command, port, folder / "redis.log"):
        yield f"redis://127.0.0.1:{port}/0"


def counted(redis: Any) -> dict[str, float]:
    """What Redis has done so far: scripts that it was asked to run, commands in them, seconds of CPU time."""
    calls = {name: found["calls"] for name, found in redis.info("commandstats").items()}
    asked = sum(calls.get(f"cmdstat_{name}", 0) for name in ("evalsha", "eval", "fcall"))
    own = sum(calls.get(f"cmdstat_{name}", 0) for name in ("info", "ping", "client", "hello", "script|load", "select"))
    cpu = redis.info("cpu")
    return {
        "round_trips": asked,
        "commands": sum(calls.values()) - asked - own,
        "seconds": cpu["used_cpu_user"] + cpu["used_cpu_sys"],
    }


def measure(targets: dict[str, BenchTarget], redis: Any, connections: int, options: argparse.Namespace) -> list[Any]:
    """The rows of one number of connections, a row for each kind and repeat."""
    rows = []
    requests = options.requests if connections > 1 else options.requests // 4
    for repeat in range(options.repeats):
        for kind in KINDS if repeat % 2 else KINDS[::-1]:
            before = counted(redis)
            row = load(targets[kind], "plain", connections, requests)
            after = counted(redis)
            row.update({name: (after[name] - before[name]) / row["requests"] * 1000 for name in after})
            rows.append(row)
    return rows


def line_of(connections: int, rows: list[Any]) -> dict[str, Any]:
    """The least of each kind, and what Redis did for 1,000 requests (ms of its CPU time)."""
    least = {kind: min((row for row in rows if row["target"] == kind), key=lambda row: row["cpu_ms"]) for kind in KINDS}
    memory, redis = least["memory"], least["redis"]
    return {
        "connections": connections,
        "memory_ms": memory["cpu_ms"],
        "redis_ms": redis["cpu_ms"],
        "ratio": redis["cpu_ms"] / memory["cpu_ms"],
        "p50_ms": (memory["p50_ms"], redis["p50_ms"]),
        "p99_ms": (memory["p99_ms"], redis["p99_ms"]),
        "round_trips": redis["round_trips"],
        "commands": redis["commands"],
        "redis_cpu": redis["seconds"] * 1000,
        "errors": sum(row["errors"] for row in rows),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=6000, help="for each measurement; a quarter at one connection")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--connections", default="1,20,200")
    parser.add_argument("--json", type=Path, help="write the lines to this file")
    options = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory(prefix="airelays-limits-") as name, ExitStack() as stack:
        folder, upstream = Path(name), free_port()
        command = [sys.executable, "-m", "tests.support.load.upstream", str(upstream)]
        stack.enter_context(started(command, upstream, folder / "upstream.log"))
        url = stack.enter_context(redis_server(folder))
        targets = {}
        for kind in KINDS:
            (folder / kind).mkdir()
            env = {"AIRELAYS_REDIS_URL": url if kind == "redis" else "", "AIRELAYS_JOBS": "false"}
            targets[kind] = stack.enter_context(portal(upstream, folder / kind, env))
            targets[kind].name = kind
            load(targets[kind], "plain", 20, 2000)  # warm
        with Redis.from_url(url) as redis:
            for connections in (int(number) for number in options.connections.split(",")):
                found = line_of(connections, measure(targets, redis, connections, options))
                lines.append(found)
                print(
                    f"{connections:4} connections  memory {found['memory_ms']:.3f} ms  Redis {found['redis_ms']:.3f} "
                    f"ms  ratio {found['ratio']:.2f}  p50 {found['p50_ms'][0]:.2f} / {found['p50_ms'][1]:.2f}  p99 "
                    f"{found['p99_ms'][0]:.2f} / {found['p99_ms'][1]:.2f}  for 1,000 requests: "
                    f"{found['round_trips']:.0f} round trips, {found['commands']:.0f} commands, "
                    f"{found['redis_cpu']:.0f} ms of Redis' CPU  errors {found['errors']}",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps(lines, indent=1))
    if any(line["errors"] or line["ratio"] > BOUNDS.get(line["connections"], 1.15) for line in lines):
        sys.exit(1)


if __name__ == "__main__":
    main()
