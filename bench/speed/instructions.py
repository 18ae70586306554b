"""Counts the bytecode instructions of a request: `python -m bench.speed.instructions [--cases plain,burst] [--top 40]`.

The portal runs as in the benchmark, with a tracer in its threads. What it counts does not depend on what else the
machine does, as times do, and repeats to about one percent; what libraries do in C is not in it.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

# What imports `tests.support.server` gets a data folder of tests, so that only the process that measures may.
ROOT: Final = Path(__file__).resolve().parent.parent.parent
_OUTPUT: Final = "BENCH_INSTRUCTIONS"  # environment: the file for the counts


class Tracer:
    """Counts instructions by function, between one SIGUSR2 and the next."""

    def __init__(self, output: Path) -> None:
        self._output = output
        self._on = False
        self._counts: Counter[CodeType] = Counter()
        self._threads: dict[int, bool] = {}

    def install(self) -> None:
        signal.signal(signal.SIGUSR2, self._switch)
        threading.settrace(self._called)
        sys.settrace(self._called)

    def _switch(self, number: int, frame: FrameType | None) -> None:
        self._on = not self._on
        if not self._on:
            found = [(code.co_filename, code.co_qualname, count) for code, count in self._counts.items()]
            self._counts.clear()
            self._output.with_suffix(".new").write_text(json.dumps(found))
            self._output.with_suffix(".new").replace(self._output)

    def _called(self, frame: FrameType, event: str, argument: object) -> Any:
        if not self._on or not self._counts_here():
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _counts_here(self) -> bool:
        """Whether this is a thread of requests, not one of the jobs in the background."""
        ident = threading.get_ident()
        found = self._threads.get(ident)
        if found is None:
            name = next((one.name for one in threading.enumerate() if one.ident == ident), "")
            found = self._threads[ident] = name in {"MainThread", "airelays-usage"}
        return found

    def _step(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "opcode" and self._on:
            self._counts[frame.f_code] += 1
        return self._step


def _serve() -> None:
    """In the process of the portal."""
    tracer = Tracer(Path(os.environ[_OUTPUT]))
    tracer.install()
    sys.argv = ["manage.py", *sys.argv[2:]]
    runpy.run_path(str(ROOT / "manage.py"), run_name="__main__")


def measured(
    folder: Path, case: str, requests: int, connections: int, environment: dict[str, str]
) -> list[tuple[str, str, int]]:
    """The instructions of so many requests: file, function, count."""
    # Not in the process of the portal, whose settings they would replace.
    from tests.support.load.targets import BenchTarget, load, prepared, started
    from tests.support.server import free_port

    upstream, port, output = free_port(), free_port(), folder / "counts.json"
    settings = {"AIRELAYS_DATA_DIR": str(folder / "portal"), "AIRELAYS_UPSTREAM_ALLOW": "127.0.0.1"}
    token = prepared(upstream, settings)
    command = [sys.executable, "-m", "bench.speed.instructions", "--serve", "serve", "--port", str(port)]
    serving = {**settings, "AIRELAYS_JOBS": "false", **environment, _OUTPUT: str(output)}
    with (
        started(
            [sys.executable, "-m", "tests.support.load.upstream", str(upstream)], upstream, folder / "upstream.log"
        ),
        started(command, port, folder / "portal.log", serving) as process,
    ):
        target = BenchTarget("portal", port, process, token=token)
        load(target, case, 20, 500)
        time.sleep(0.5)
        process.send_signal(signal.SIGUSR2)
        time.sleep(0.1)
        found = load(target, case, connections, requests)
        process.send_signal(signal.SIGUSR2)
        while not output.exists():
            time.sleep(0.05)
    if found["errors"]:
        raise SystemExit(f"requests failed: {found['first_errors']}")
    return [(file, function, count) for file, function, count in json.loads(output.read_text())]


def _place(file: str) -> str:
    parts = file.removeprefix(sys.base_prefix).strip("/").split("/")
    return "/".join(parts[:2]) if parts[0] in {"relay", "portal"} else "python" if parts[0] == "lib" else parts[0]


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        _serve()
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default="plain,burst")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--top", type=int, default=25, help="functions to show")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the portal")
    options = parser.parse_args()
    environment = dict(one.split("=", 1) for one in options.set)
    for case in options.cases.split(","):
        with tempfile.TemporaryDirectory(prefix="airelays-bench-") as name:
            rows = measured(Path(name), case, options.requests, options.connections, environment)
        ours: Counter[str] = Counter()
        rows = [
            (file.rpartition("site-packages/")[2].replace(f"{ROOT}/", ""), function, count)
            for file, function, count in rows
        ]
        for file, _, count in rows:
            ours["own" if file.startswith(("relay/", "portal/", "accounts/")) else "libraries"] += count
        print(
            f"{case}: {sum(ours.values()) / options.requests:,.0f} instructions a request, of them "
            f"{ours['own'] / options.requests:,.0f} our own"
        )
        by: Counter[str] = Counter()
        for file, _, count in rows:
            by[_place(file)] += count
        print("  ".join(f"{place} {count / options.requests:,.0f}" for place, count in by.most_common(24)))
        for file, function, count in sorted(rows, key=lambda row: -row[2])[: options.top]:
            print(f"{count / options.requests:8.1f}  {file}  {function}")


if __name__ == "__main__":
    main()
