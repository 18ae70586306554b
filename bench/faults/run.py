"""Fault tests: `python -m bench.faults.run [--targets portal,postgresql,litellm] [--database URL] [--only WORDS]
[--markdown FILE]`.

`--targets portal,postgresql,litellm --database URL` makes one table of all three.

Breaks upstreams, clients and the portal itself, checks for each fault what the client saw and what the record says, and
exits with 1 when this portal fails a case. Everything listens on 127.0.0.1 and is stopped at the end.

Against another gateway: `--base-url http://127.0.0.1:4000/v1 --token sk-… --ports 18101,18102,18103,18104`. The gateway
must serve the models that `--list` prints; the run starts the upstreams on these ports and checks what clients see.
"""

from __future__ import annotations

import argparse
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.faults import targets as fault_targets
from bench.faults.cases import CASES, Case
from bench.faults.events import EVENTS, FaultEvent, ask, verify_ledger
from bench.faults.redis_gone import redis_gone
from bench.faults.scripts import WAIT, healthy
from bench.faults.targets import FaultTarget, UpstreamUrls, model_of
from tests.support.server import free_port
from tests.support.upstream import Upstream


@dataclass(frozen=True)
class FaultResult:
    """The result of one case."""

    case: str
    expected: str
    wrong: str = ""  # empty: it passed
    skipped: str = ""  # why it could not be tested here

    @property
    def mark(self) -> str:
        return "—" if self.skipped else "FAIL" if self.wrong else "pass"


@contextmanager
def upstreams(ports: list[int]) -> Iterator[tuple[Upstream, Upstream, UpstreamUrls]]:
    """Start the faulty upstream, the spare, and one without TLS; one port stays closed."""
    faulty, spare = Upstream(ports[0]), Upstream(ports[1])
    for case in CASES:
        faulty.script(model_of(case.name), case.script)
        spare.script(model_of(case.name), healthy)
    for event in EVENTS:
        for model, script in event.models.items():
            faulty.script(model, script)
    tls = socket.create_server(("127.0.0.1", ports[2]))
    stop = threading.Event()

    def no_tls() -> None:
        tls.settimeout(0.2)
        while not stop.is_set():
            try:
                connection, _ = tls.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            connection.close()

    thread = threading.Thread(target=no_tls, daemon=True)
    thread.start()
    try:
        yield (
            faulty,
            spare,
            UpstreamUrls(
                faulty.base_url, spare.base_url, f"http://127.0.0.1:{ports[3]}/v1", f"https://127.0.0.1:{ports[2]}/v1"
            ),
        )
    finally:
        stop.set()
        thread.join()
        tls.close()
        faulty.stop()
        spare.stop()


def judge(target: FaultTarget, case: Case) -> FaultResult:
    """Test one case: its request, and the record if that can be read."""
    seen = ask(target, model_of(case.name), case.stream)
    wrong = case.check(seen)
    if not wrong and target.query is not None:
        wrong = check_record(target, case, seen.headers.get("x-request-id", ""))
    return FaultResult(case.name, case.expected, wrong)


def check_record(target: FaultTarget, case: Case, request_id: str) -> str:
    record = target.record(request_id)
    if record is None:
        return "no record"
    if record["end_reason"] != case.ends:
        return f"the record says {record['end_reason']}"
    log: list[dict[str, Any]] = record["attempt_log"]
    if case.outcome and log[0]["outcome"] != case.outcome:
        return f"the record calls it {log[0]['outcome']}"
    if case.spare and (len(log) != 2 or log[1]["outcome"] != "ok"):
        return f"{len(log)} attempts on the record"
    if case.waits and not WAIT - 3 <= float(log[0].get("wait", 0)) <= WAIT + 1:
        return f"the record says to wait {log[0].get('wait')} s"
    if case.ends == "upstream_error" and not case.stream and record["cost"]:
        return "a failed request was billed"
    return ""


def run_event(target: FaultTarget, event: FaultEvent, faulty: Upstream) -> FaultResult:
    if event.needs_database and target.query is None:
        return FaultResult(event.name, event.expected, skipped="no database to look at")
    return FaultResult(event.name, event.expected, event.run(target, faulty))


def run_target(target: FaultTarget, faulty: Upstream, only: str, show: bool = True) -> list[FaultResult]:
    found = []
    items: list[Case | FaultEvent] = [*CASES, *EVENTS]
    for item in items:
        if only and only.lower() not in item.name.lower():
            continue
        result = judge(target, item) if isinstance(item, Case) else run_event(target, item, faulty)
        found.append(result)
        if show:
            print(
                f"{target.name:10} {result.mark:5} {result.case:45} "
                f"{result.wrong or result.skipped or result.expected}",
                flush=True,
            )
    if target.query is not None and not only:
        wrong = verify_ledger(target)
        held = target.query("SELECT coalesce(sum(amount), 0) FROM relay_reservation")[0][0]
        found.append(
            FaultResult(
                "books after all of it",
                "`ledger verify` clean",
                wrong or ("" if held < 10**9 else f"{held} nano-USD still held"),
            )
        )
        print(
            f"{target.name:10} {found[-1].mark:5} {found[-1].case:45} {found[-1].wrong or found[-1].expected}",
            flush=True,
        )
    return found


def run_named(
    name: str, server: str, others: list[str], urls: UpstreamUrls, folder: Path, faulty: Upstream, only: str
) -> tuple[str, list[FaultResult]]:
    """Test one target: `portal`, `postgresql` (the portal with that database) or `litellm`."""
    if name == "litellm":
        with fault_targets.litellm(CASES, others, urls, folder / name) as target:
            return "LiteLLM", run_target(target, faulty, only)
    with ExitStack() as stack:
        database = stack.enter_context(fault_targets.own_database(server)) if name == "postgresql" else ""
        target = stack.enter_context(fault_targets.portal(CASES, others, urls, folder / name, database))
        found = run_target(target, faulty, only)
    if name == "portal" and (not only or only.lower() in "redis gone"):
        wrong, skipped = redis_gone(urls, folder / "redis", faulty)
        found.append(
            FaultResult("Redis gone", "503 with Retry-After for those with limits; the others served", wrong, skipped)
        )
        print(
            f"{'portal':10} {found[-1].mark:5} {'Redis gone':45} {wrong or skipped or found[-1].expected}", flush=True
        )
    return ("portal, PostgreSQL" if database else "portal, SQLite"), found


def markdown(results: dict[str, list[FaultResult]]) -> str:
    """A table with a column for each target."""
    names = list(results)
    lines = ["| fault | what the client must see | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    by_case: dict[str, dict[str, FaultResult]] = {}
    for name, found in results.items():
        for result in found:
            by_case.setdefault(result.case, {})[name] = result
    for case, columns in by_case.items():
        cells = [
            f"**fails**: {column.wrong}"
            if (column := columns.get(name)) and column.wrong
            else column.mark
            if column
            else "—"
            for name in names
        ]
        lines.append(
            f"| {case} | {next(iter(columns.values())).expected} | "
            + " | ".join(cell.replace("|", "/") for cell in cells)
            + " |"
        )
    totals = [
        f"{sum(1 for one in found if one.mark == 'pass')} of {sum(1 for one in found if not one.skipped)}"
        for found in results.values()
    ]
    return "\n".join([*lines, "| **passed** | | " + " | ".join(totals) + " |"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", default="portal")
    parser.add_argument(
        "--database",
        default="",
        help="postgresql://… of a server on which the target “postgresql” gets a database of its own",
    )
    parser.add_argument("--only", default="", help="cases whose name has these words")
    parser.add_argument("--markdown", type=Path, help="write the table to this file")
    parser.add_argument("--base-url", default="", help="another gateway, as it runs")
    parser.add_argument("--token", default="")
    parser.add_argument(
        "--ports",
        default="",
        help="of the faulty upstream, the spare, the one without TLS, the one where nobody answers",
    )
    parser.add_argument(
        "--list", action="store_true", help="print the models that another gateway must know, and where"
    )
    options = parser.parse_args()
    ports = [int(port) for port in options.ports.split(",")] if options.ports else [free_port() for _ in range(4)]
    others = sorted({model for event in EVENTS for model in event.models})
    if options.list:
        faulty_url, spare_url, nobody = (f"http://127.0.0.1:{ports[index]}/v1" for index in (0, 1, 3))
        urls = UpstreamUrls(faulty_url, spare_url, nobody, f"https://127.0.0.1:{ports[2]}/v1")
        for case in CASES:
            print(f"{model_of(case.name):45} {urls.of(case)}" + (f", then {urls.spare}" if case.spare else ""))
        for model in others:
            print(f"{model:45} {urls.faulty}")
        return
    began = time.monotonic()
    results: dict[str, list[FaultResult]] = {}
    with upstreams(ports) as (faulty, _, urls), tempfile.TemporaryDirectory(prefix="airelays-faults-") as name:
        folder = Path(name)
        if options.base_url:
            results["gateway"] = run_target(
                FaultTarget("gateway", options.base_url.rstrip("/"), options.token), faulty, options.only
            )
        else:
            for target_name in options.targets.split(","):
                label, found = run_named(target_name, options.database, others, urls, folder, faulty, options.only)
                results[label] = found
    for label, found in results.items():
        failed = [result.case for result in found if result.wrong]
        print(
            f"{label}: {sum(1 for result in found if result.mark == 'pass')} passed, {len(failed)} failed, "
            f"{sum(1 for result in found if result.skipped)} not tried"
        )
    print(f"{time.monotonic() - began:.0f} s")
    if options.markdown:
        options.markdown.write_text(markdown(results))
    if any(result.wrong for label, found in results.items() if label != "LiteLLM" for result in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
