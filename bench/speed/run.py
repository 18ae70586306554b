"""Runs the benchmark: `python -m bench.speed.run [--targets portal,bare,…] [--cases …] [--scale 1.0] [--markdown
FILE]`.

Everything listens on 127.0.0.1 and is stopped at the end. CPU is the user and system time of the gateway's processes
from /proc, divided by the requests; the generator and the upstream are separate processes and do not count. Ratios
within one run are comparable, absolute figures of different machines are not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.speed.peers import PEERS, SLOW
from tests.support.load.targets import BenchTarget, load, portal, started
from tests.support.server import free_port

RECORDS_SECONDS = 3  # that a gateway has to write its records after the last answer
TARGET_ORDER = ("nginx", "bare", "portal", *PEERS)

# (case, connections, requests at scale 1). LiteLLM gets a tenth: it would take an hour otherwise.
LOAD_CASES = (
    ("plain", 1, 2000), ("plain", 20, 10000), ("plain", 200, 10000),
    ("burst", 1, 1000), ("burst", 20, 5000), ("burst", 200, 5000),
    ("paced", 1, 5), ("paced", 20, 200), ("paced", 200, 2000),
)  # fmt: skip


@contextmanager
def bare(upstream: int, folder: Path) -> Iterator[BenchTarget]:
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "bench.speed.bare:application",
        "--port",
        str(port),
        "--no-access-log",
        "--lifespan",
        "off",
        "--log-level",
        "warning",
    ]
    with started(command, port, folder / "bare.log", {"BENCH_UPSTREAM": f"http://127.0.0.1:{upstream}"}) as process:
        yield BenchTarget("bare", port, process)


@contextmanager
def nginx(upstream: int, folder: Path) -> Iterator[BenchTarget]:
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;\n"
        "events { worker_connections 2048; }\n"
        f"http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path "
        f"{folder}/f;\n"
        f"uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"upstream up {{ server 127.0.0.1:{upstream}; keepalive 256; }}\n"
        f"server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000;\n"
        'location / { proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering '
        "off; } } }\n"
    )
    with started(
        [shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(config), "-p", str(folder)], port, folder / "nginx.log"
    ) as process:
        yield BenchTarget("nginx", port, process)


STARTERS = {"nginx": nginx, "bare": bare, "portal": portal, **PEERS}


def show(row: dict[str, Any]) -> str:
    return (
        f"{row['target']:12} {row['case']:6} {row['connections']:4}  {row['rps']:8.1f}/s  p50 {row['p50_ms']:8.2f}  "
        f"p99 {row['p99_ms']:8.2f}  "
        f"first {row['ttft_p50_ms']:7.2f}  gap p99 {row['gap_p99_ms']:6.2f}  CPU {row['cpu_ms']:7.3f} ms  RSS "
        f"{row['rss_mib']:6.1f}" + (f"  ERRORS {row['errors']}: {row['first_errors']}" if row["errors"] else "")
    )


def markdown(rows: list[dict[str, Any]]) -> str:
    lines = [
        (
            "| case | connections | gateway | requests/s | p50 ms | p99 ms | first byte p50 ms | chunk jitter p99 ms "
            "| CPU ms/request | RSS MiB |"
        ),
        "|---|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in sorted(
        rows,
        key=lambda row: (
            ("plain", "burst", "paced").index(row["case"]),
            row["connections"],
            TARGET_ORDER.index(row["target"]),
        ),
    ):
        jitter = f"{row['gap_p99_ms']:.2f}" if row["case"] == "paced" else ""
        lines.append(
            f"| {row['case']} | {row['connections']} | {row['target']} | {row['rps']:.0f} | {row['p50_ms']:.2f} | "
            f"{row['p99_ms']:.2f} | {row['ttft_p50_ms']:.2f} | {jitter} | "
            f"{row['cpu_ms']:.3f} | {row['rss_mib']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", default=",".join(TARGET_ORDER))
    parser.add_argument("--cases", default="plain,burst,paced")
    parser.add_argument("--connections", default="1,20,200")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--markdown", type=Path, help="write a table to this file")
    options = parser.parse_args()
    wanted = {int(number) for number in options.connections.split(",")}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="airelays-bench-") as name:
        folder = Path(name)
        upstream = free_port()
        with started(
            [sys.executable, "-m", "tests.support.load.upstream", str(upstream)], upstream, folder / "upstream.log"
        ):
            for target_name in options.targets.split(","):
                if target_name == "nginx" and not (shutil.which("nginx") or Path("/usr/sbin/nginx").exists()):
                    print("nginx is not installed: left out", file=sys.stderr)
                    continue
                with STARTERS[target_name](upstream, folder) as target:
                    load(target, "plain", 20, 100 if target_name in SLOW else 2000)  # warm
                    for case, connections, requests in LOAD_CASES:
                        if case not in options.cases.split(",") or connections not in wanted:
                            continue
                        slow = 1.0 if target_name not in SLOW else 0.3 if case == "paced" else 0.1
                        row = load(target, case, connections, max(connections, int(requests * options.scale * slow)))
                        rows.append(row)
                        print(show(row), flush=True)
                    if target.recorded is not None:
                        time.sleep(RECORDS_SECONDS)
                        print(f"{target_name} has records of {target.recorded()} of {target.answered} answers")
    for case, connections in dict.fromkeys((row["case"], row["connections"]) for row in rows):
        cpu = {row["target"]: row["cpu_ms"] for row in rows if (row["case"], row["connections"]) == (case, connections)}
        if "portal" in cpu:
            ratios = [f"{cpu['portal'] / cpu[peer]:.2f}x {peer}" for peer in cpu if peer != "portal" and cpu[peer]]
            print(f"CPU of portal, {case} at {connections}: {', '.join(ratios)}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    if options.markdown:
        options.markdown.write_text(markdown(rows))
    if any(row["errors"] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
