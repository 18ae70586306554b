"""Everything at once: two workers on PostgreSQL and Redis, every kind of request, upstreams that fail, kills, restarts.

python -m bench.everything.run --minutes 60

Afterwards what clients saw, what upstreams counted, what was recorded and what was paid must agree. Exit code 1 when
they do not, when something is left over, or when the log has a traceback. Everything is on 127.0.0.1 and ends by
itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop

from bench.everything import report
from bench.everything.chaos import Chaos
from bench.everything.clients import Clients
from bench.everything.judge import Judge, attempts_of
from bench.everything.kinds import KINDS
from bench.everything.product import Product
from bench.everything.services import own_services
from bench.everything.tariff import BATCH_SHARE
from tests.support.load.targets import CLOCK_TICKS, started
from tests.support.server import ROOT, free_port

_USERS: Final = 12
_PREPARED_SECONDS: Final = 900.0  # on a machine that does much else
_SETTLED_SECONDS: Final = 120.0  # until nothing is held any more: a killed worker's holds last a minute
_ENV: Final = {
    "AIRELAYS_UPSTREAM_ALLOW": "127.0.0.1",
    "AIRELAYS_FIRST_BYTE_TIMEOUT": "5",
    "AIRELAYS_IDLE_TIMEOUT": "5",
    "AIRELAYS_BATCH_PRICE": BATCH_SHARE,
    "AIRELAYS_CONFIG": "",
}
_LEFT: Final = {
    "reservations": "SELECT count(*), coalesce(sum(amount), 0) FROM relay_reservation WHERE amount > 0",
    "reserved in accounts": "SELECT count(*), coalesce(sum(reserved), 0) FROM relay_ledgeraccount WHERE reserved > 0",
    "batches that have not ended": "SELECT count(*), 0 FROM relay_batch WHERE status NOT IN "
    "('failed', 'completed', 'expired', 'cancelled')",
    "responses that have not ended": "SELECT count(*), 0 FROM relay_storedresponse WHERE status IN "
    "('queued', 'in_progress')",
}
_HELD: Final = "SELECT id, owner, user_id, amount, expires_at - extract(epoch from now())::int FROM relay_reservation"
_RUNNING: Final = "SELECT pid, running, state FROM relay_worker WHERE seen_at > now() - interval '1 min'"


async def _work(options: argparse.Namespace, folder: Path) -> report.Findings:
    found = report.Findings(options.minutes)
    port, counts = free_port(), folder / "counts.jsonl"
    upstream = f"http://127.0.0.1:{port}"
    with own_services() as (postgres, redis):
        env = {
            **_ENV,
            "AIRELAYS_DATA_DIR": str(folder / "data"),
            "AIRELAYS_DATABASE_URL": postgres.url,
            "AIRELAYS_REDIS_URL": redis.url,
        }
        tokens = _prepare(env, upstream)
        command = [sys.executable, "-m", "bench.everything.upstreams", str(port), str(counts)]
        product = Product(folder, env)
        timeout = aiohttp.ClientTimeout(total=None)
        with started(command, port, folder / "upstreams.log"):
            product.start()
            try:
                # Connections are kept for a short time, so that both workers have their share.
                connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3)
                async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as http:
                    if not await product.ready(http):
                        raise SystemExit(f"the portal does not start; see {product.log}")
                    clients = Clients(product.url, tokens, http)
                    chaos = Chaos(product, postgres, redis, http, upstream)
                    await _measure(options, found, clients, chaos, product)
                    await _drain(found, product)
                    _judge(found, clients, chaos, product, counts)
            finally:
                code = product.stop()
        if code != 0:
            found.faults.append(f"serve ended with {code} at the end")
        found.faults += product.ends
        found.tracebacks, found.log_errors = report.read_log(product.log.read_text(errors="replace"))
    return found


def _prepare(env: dict[str, str], upstream: str) -> list[str]:
    made = subprocess.run(
        [sys.executable, "-m", "bench.everything.setup", upstream, str(_USERS)],
        cwd=ROOT,
        env={**os.environ, **env},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=_PREPARED_SECONDS,
    )
    tokens: list[str] = json.loads(made.stdout.splitlines()[-1])
    return tokens


async def _measure(
    options: argparse.Namespace, found: report.Findings, clients: Clients, chaos: Chaos, product: Product
) -> None:
    """Each kind alone, then everything at once."""
    clients.phase = "alone"
    for kind in KINDS:
        print(f"{time.strftime('%H:%M:%S')} {kind.name} alone", flush=True)
        await clients.drive(kind, options.alone, options.load)
    clients.phase = "everything"
    seconds, began = options.minutes * 60, time.monotonic()
    chaos.look_at_cpu()
    busy, own = _machine(), chaos.cpu.copy()
    print(f"{time.strftime('%H:%M:%S')} everything at once for {options.minutes:g} minutes", flush=True)
    progress = asyncio.ensure_future(_progress(clients, chaos))
    try:
        works = [clients.drive(kind, seconds, options.load) for kind in KINDS]
        for end in await asyncio.gather(chaos.run(seconds), *works, return_exceptions=True):
            if isinstance(end, BaseException):
                found.faults.append(f"the run itself failed: {type(end).__name__}: {end}")
    finally:
        progress.cancel()
    now = _machine()
    chaos.look_at_cpu()
    total = max(now[1] - busy[1], 1)
    used = sum(seconds - own.get(pid, 0.0) for pid, seconds in chaos.cpu.items())
    found.cpu = (
        f"The machine's {os.cpu_count()} cores were busy for {100 * (now[0] - busy[0]) / total:.0f} % of the time, for "
        f"{100 * used / total:.0f} % with the portal, its servers, clients and upstreams."
    )
    found.phases = {"everything": time.monotonic() - began, "alone": options.alone * len(KINDS)}
    found.events = [
        {"what": e.what, "detail": e.detail, "at": e.at - chaos.began_wall, "seconds": max(0.0, e.until - e.at)}
        for e in chaos.events
    ]


def _machine() -> tuple[float, float]:
    """Seconds that the cores have worked, and all of their seconds."""
    fields = [int(field) / CLOCK_TICKS for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


async def _progress(clients: Clients, chaos: Chaos) -> None:
    while True:
        await asyncio.sleep(60)
        bad = sum(one.how not in {"whole", "left"} for one in clients.seen)
        sizes = {pid: series[-1][1] for pid, series in chaos.memory.items() if pid in chaos.product.workers()}
        print(f"{time.strftime('%H:%M:%S')} {len(clients.seen)} ended, {bad} with errors; MiB {sizes}", flush=True)


async def _drain(found: report.Findings, product: Product) -> None:
    """Wait until nothing is held and nothing runs, and report what is left."""
    print(f"{time.strftime('%H:%M:%S')} waiting until nothing is held", flush=True)
    until, left = time.monotonic() + _SETTLED_SECONDS, ["not looked at"]
    while left and time.monotonic() < until:
        await asyncio.sleep(2)
        left = []
        for name, sql in _LEFT.items():
            number, amount = (await asyncio.to_thread(product.query, sql))[0]
            if number:
                left.append(f"{name}: {number}" + (f", {amount} nano-USD" if amount else ""))
    found.leftovers += left
    if left:
        held = await asyncio.to_thread(product.query, _HELD)
        found.leftovers += [f"reservation {row}; the workers are {product.workers()}" for row in held]
        workers = await asyncio.to_thread(product.query, _RUNNING)
        found.leftovers += [f"worker {row}" for row in workers]
    for command in (("ledger", "verify"), ("rollup", "verify"), ("uploads", "verify", "--contents")):
        code, said = await asyncio.to_thread(product.manage, *command)
        if code:
            found.leftovers.append(f"{' '.join(command)} ended with {code}: {said[-500:]}")


def _judge(found: report.Findings, clients: Clients, chaos: Chaos, product: Product, counts: Path) -> None:
    judge = Judge(clients.seen, attempts_of(counts), chaos.events, product.query)
    money = judge.judge()
    found.money, found.mismatches = report.money_figures(money), [str(one) for one in money.mismatches]
    found.latencies = report.latencies(clients.seen, judge.attempts, chaos.events)
    found.errors, unexplained = report.errors(clients.seen, judge.attempts, chaos.events)
    found.faults += [*chaos.faults, *unexplained]
    found.memory = report.memory(chaos.memory)
    found.skipped = dict(clients.skipped)
    with (counts.parent / "seen.jsonl").open("w") as file:
        file.writelines(json.dumps(asdict(one)) + "\n" for one in clients.seen)
    for one in clients.seen:
        found.sent[one.kind] = found.sent.get(one.kind, 0) + 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="of everything at once")
    parser.add_argument("--alone", type=float, default=60.0, help="seconds of each kind alone before")
    parser.add_argument("--load", type=float, default=1.0, help="times the usual rates")
    parser.add_argument("--out", type=Path, default=None, help="folder of the report, the log and the counts")
    options = parser.parse_args()
    folder = options.out or Path(tempfile.mkdtemp(prefix="airelays-everything-"))
    folder.mkdir(parents=True, exist_ok=True)
    limit = options.minutes * 60 + (options.alone + 400) * len(KINDS) + 1200
    print(f"the report, the log and the counts come to {folder}", flush=True)
    found: report.Findings = uvloop.run(asyncio.wait_for(_work(options, folder), limit))
    page, figures = report.markdown(found), asdict(found)
    (folder / "report.md").write_text(page)
    (folder / "report.json").write_text(json.dumps({"passed": found.passed, **figures}, indent=1, default=_shown))
    print(page)
    return 0 if found.passed else 1


def _shown(value: Any) -> str:
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
