"""One, two and four workers, and two hosts, on PostgreSQL and Redis: `python -m bench.scale.run [--only …]`.

Two hosts are two network namespaces of this machine, which needs root and iproute2. Each part says what it counted;
exit code 1 when a limit was exceeded, a record is missing, the books do not balance, or a client saw an error that it
must not see. CPU is the user and system time of the gateway's processes; the generators and upstreams are others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp

from bench.everything.services import Postgres, Redis, own_services
from bench.scale import prepare
from bench.scale.hosts import Host, can_make_hosts, namespaces
from tests.support.load.targets import cpu_seconds, rss_mib
from tests.support.load.upstream import CHUNKS
from tests.support.server import ROOT, free_port

_PLENTY: Final = 10**15
_SHARED: Final = {"AIRELAYS_UPSTREAM_ALLOW": "127.0.0.1", "AIRELAYS_SHARED_DATA_DIR": "true", "AIRELAYS_CONFIG": ""}
_BODY: Final = {"messages": [{"role": "user", "content": "Say something. " * 10}]}
PARTS: Final = ("workers", "hosts", "limits", "revocation", "overspend", "kills", "restart")


class Run:
    """What all parts share."""

    def __init__(self, folder: Path, postgres: Postgres, redis: Redis, scale: float) -> None:
        self.folder, self.postgres, self.redis, self.scale = folder, postgres, redis, scale
        self.faults: list[str] = []
        self.upstream = free_port()

    def env(self, here: str = "127.0.0.1") -> dict[str, str]:
        """Of a portal that reaches the database and Redis at `here`."""
        return {
            **_SHARED,
            "AIRELAYS_DATA_DIR": str(self.folder / "data"),
            "AIRELAYS_DATABASE_URL": self.postgres.url.replace("127.0.0.1", here),
            "AIRELAYS_REDIS_URL": self.redis.url.replace("127.0.0.1", here),
            "AIRELAYS_ALLOWED_HOSTS": "*",
        }

    def judge(self, right: bool, line: str) -> None:
        print(("  " if right else "  WRONG: ") + line, flush=True)
        if not right:
            self.faults.append(line)

    def judge_books(self) -> None:
        until = time.monotonic() + 120  # what a killed worker holds lasts a minute
        while prepare.held() and time.monotonic() < until:
            time.sleep(1)
        said = prepare.books()
        self.judge(not prepare.held(), f"nothing is held ({prepare.held()} nano-USD)")
        self.judge("exit" not in said, f"ledger verify: {said.splitlines()[-1] if said else ''}")


def generate(host: Host, case: str, connections: int, requests: int, token: str) -> subprocess.Popen[str]:
    command = [
        *host.prefix, sys.executable, "-m", "tests.support.load.generator",
        f"http://{host.address}:{host.port}/v1/chat/completions", case, "--connections", str(connections), "--token",
        token, "--requests", str(requests),
    ]  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, errors = process.communicate(timeout=600)
    if not out.strip():
        raise RuntimeError(f"the generator failed: {errors[-500:]}")
    found: dict[str, Any] = json.loads(out)
    return found


def measure(run: Run, hosts: list[Host], case: str, connections: int, requests: int, token: str) -> None:
    """Load on all hosts at once; prints requests per second of all, and the gateways' CPU for each."""
    pids = [host.process.pid for host in hosts if host.process is not None]
    before, transactions = sum(map(cpu_seconds, pids)), prepare.transactions()
    each = max(1, connections // len(hosts))
    ends = [result(one) for one in [generate(host, case, each, requests // len(hosts), token) for host in hosts]]
    time.sleep(0.5)
    answers = sum(end["requests"] for end in ends)
    cpu = 1000 * (sum(map(cpu_seconds, pids)) - before) / max(answers, 1)
    per_thousand = 1000 * (prepare.transactions() - transactions) / max(answers, 1)
    print(
        f"  {case:6} {connections:4} connections  {sum(end['rps'] for end in ends):8.0f}/s  p99 "
        f"{max(end['p99_ms'] for end in ends):7.1f} ms  CPU {cpu:6.3f} ms/request  {per_thousand:5.0f} transactions "
        "per 1,000 requests",
        flush=True,
    )
    errors = [error for end in ends for error in end["first_errors"]]
    if errors:
        run.judge(False, f"{case} at {connections}: {errors}")


@contextmanager
def serving(hosts: list[Host], workers: int, upstream: int) -> Iterator[None]:
    try:
        for host in hosts:
            host.upstream(upstream)
            host.serve(workers)
        for host in hosts:
            host.wait_until_up(workers)
        yield
    finally:
        for host in hosts:
            host.end()


def workers(run: Run) -> None:
    """Throughput and CPU with one, two and four workers on this machine."""
    token = prepare.payer("workers", _PLENTY, max_rpm=10**8, max_concurrency=10_000).token
    for number in (1, 2, 4):
        here = Host("", "127.0.0.1", run.folder, run.env())
        with serving([here], number, run.upstream):
            print(f"{number} workers", flush=True)
            result(generate(here, "plain", 20, int(2000 * run.scale), token))  # warm
            for case, connections, requests in (("plain", 20, 8000), ("plain", 200, 8000), ("burst", 20, 4000)):
                measure(run, [here], case, connections, int(requests * run.scale), token)
            assert here.process is not None  # noqa: S101  # it serves
            own = [f"{rss_mib(pid):.0f}" for pid in here.workers()]
            whole = rss_mib(here.process.pid)
            print(f"  memory: {whole:.0f} MiB in all, workers {', '.join(own)} MiB", flush=True)


def hosts_load(run: Run, hosts: list[Host]) -> None:
    """Throughput of two hosts with a worker each."""
    token = prepare.payer("hosts", _PLENTY, max_rpm=10**8, max_concurrency=10_000).token
    for host in hosts:
        result(generate(host, "plain", 20, int(2000 * run.scale), token))  # warm
    for case, connections, requests in (("plain", 20, 8000), ("plain", 200, 8000), ("burst", 20, 4000)):
        measure(run, hosts, case, connections, int(requests * run.scale), token)


async def _call(http: aiohttp.ClientSession, host: Host, token: str, model: str = "plain") -> tuple[int, str, bytes]:
    """Status, request id and body; 0 when the connection broke."""
    body = {**_BODY, "model": model, "stream": model != "plain", "max_tokens": CHUNKS}
    try:
        async with http.post(
            f"{host.url}/v1/chat/completions", json=body, headers={"authorization": f"Bearer {token}"}
        ) as answer:
            return answer.status, answer.headers.get("x-request-id", ""), await answer.read()
    except (aiohttp.ClientError, ConnectionError, TimeoutError):
        return 0, "", b""


def _session() -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=60)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout, trust_env=False)


async def limits(run: Run, hosts: list[Host]) -> None:
    """Limits are exact over workers and hosts."""
    for limit in (1, 30):
        who = await asyncio.to_thread(prepare.payer, f"rpm-{limit}", _PLENTY, max_rpm=limit)
        await asyncio.sleep(1.5)
        async with _session() as http:
            calls = [_call(http, hosts[n % len(hosts)], who.token) for n in range(5 * limit + 20)]
            done = [status for status, _, _ in await asyncio.gather(*calls)]
        run.judge(done.count(200) == limit, f"{limit} requests a minute: {done.count(200)} of {len(done)} admitted")
    who = await asyncio.to_thread(prepare.payer, "concurrency", _PLENTY, max_concurrency=10)
    await asyncio.sleep(1.5)
    async with _session() as http:
        for turn in range(3):
            calls = [_call(http, hosts[n % len(hosts)], who.token, "paced") for n in range(60)]
            done = [status for status, _, _ in await asyncio.gather(*calls)]
            run.judge(done.count(200) == 10, f"10 at a time, turn {turn + 1}: {done.count(200)} of 60 admitted")


async def revocation(run: Run, hosts: list[Host]) -> None:
    """A revoked token is refused everywhere within a second."""
    who = await asyncio.to_thread(prepare.payer, "revoked", _PLENTY)
    await asyncio.sleep(1.5)
    async with _session() as http:
        before = [(await _call(http, host, who.token))[0] for host in hosts for _ in range(10)]
        await asyncio.to_thread(prepare.revoke, who)
        at, last = time.monotonic(), 0.0
        while time.monotonic() - at < 3:
            asked = time.monotonic()
            found = await asyncio.gather(*(_call(http, host, who.token) for host in hosts for _ in range(4)))
            if any(status == 200 for status, _, _ in found):
                last = asked - at
            await asyncio.sleep(0.02)
    run.judge(set(before) == {200} and last < 1, f"the last request of a revoked token began {last:.2f} s after it")


async def overspend(run: Run, hosts: list[Host]) -> None:
    """200 at once with money for ten and a half: the last answer is shorter, if the upstream keeps to its limit."""
    money = 10 * prepare.PRICE + prepare.PRICE // 2
    who = await asyncio.to_thread(prepare.payer, "overspender", money)
    await asyncio.sleep(1.5)
    async with _session() as http:
        found = await asyncio.gather(*(_call(http, hosts[n % len(hosts)], who.token) for n in range(200)))
    good = sum(status == 200 for status, _, _ in found)
    strange = {status for status, _, _ in found} - {200, 402, 429, 503}
    spent = await asyncio.to_thread(prepare.charged, who.user_id)
    run.judge(
        spent <= money and good <= 11 and not strange,
        f"200 at once with money for 10.5: {good} answers, {spent / prepare.PRICE:.1f} prices charged"
        + (f", and {strange}" if strange else ""),
    )


async def kills(run: Run, hosts: list[Host]) -> None:
    """A worker, a host and Redis are killed under load; every whole answer has its record."""
    payers = [await asyncio.to_thread(prepare.payer, f"kill-{number}", _PLENTY, max_rpm=10**6) for number in range(4)]
    await asyncio.sleep(1.5)
    whole: set[str] = set()
    end = False

    async def client(number: int, http: aiohttp.ClientSession) -> None:
        while not end:
            model = ("plain", "burst", "paced")[number % 3]
            status, name, text = await _call(http, hosts[number % len(hosts)], payers[number % 4].token, model)
            if status == 200 and (model == "plain" or text.endswith(b"data: [DONE]\n\n")):
                whole.add(name)
            elif not status:
                await asyncio.sleep(0.1)

    async with _session() as http:
        clients = [asyncio.ensure_future(client(number, http)) for number in range(24)]
        await asyncio.sleep(4)
        os.kill(hosts[0].workers()[0], signal.SIGKILL)
        await asyncio.sleep(6)
        await asyncio.to_thread(run.redis.stop)
        await asyncio.sleep(3)
        await asyncio.to_thread(run.redis.start)
        await asyncio.sleep(5)
        hosts[-1].kill()
        await asyncio.sleep(2)
        hosts[-1].serve(2)
        await asyncio.to_thread(hosts[-1].wait_until_up, 2)
        await asyncio.sleep(4)
        end = True
        await asyncio.gather(*clients)
    await asyncio.sleep(2)
    found = await asyncio.to_thread(prepare.recorded, whole)
    run.judge(found == len(whole) > 0, f"{found} of {len(whole)} whole answers have one record each")
    await asyncio.to_thread(run.judge_books)


async def restart(run: Run, hosts: list[Host]) -> None:
    """All workers are replaced one after the other under 200 streams; no client sees an error."""
    who = await asyncio.to_thread(prepare.payer, "restart", _PLENTY, max_concurrency=10_000)
    host = hosts[0]
    assert host.process is not None  # noqa: S101  # it serves
    old = set(host.workers())
    load = generate(host, "paced", 200, 200 * 30, who.token)
    await asyncio.sleep(4)
    host.process.send_signal(signal.SIGHUP)
    gone = await asyncio.to_thread(host.replaced, old)
    found = await asyncio.to_thread(result, load)
    run.judge(gone, f"all {len(old)} workers were replaced")
    run.judge(not found["errors"], f"{found['requests']} streams, {found['errors']} errors {found['first_errors']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas (%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the requests that are measured")
    options = parser.parse_args()
    wanted = set(options.only.split(","))
    if not can_make_hosts():
        sys.exit("Two hosts are network namespaces, which needs root and iproute2 (apt-get install iproute2).")
    both: dict[str, Callable[[Run, list[Host]], Any]] = {
        "limits": limits,
        "revocation": revocation,
        "overspend": overspend,
        "kills": kills,
        "restart": restart,
    }
    with tempfile.TemporaryDirectory(prefix="airelays-scale-") as name, namespaces(2) as made:
        folder = Path(name)
        with own_services([here for _, _, here in made]) as (postgres, redis):
            run = Run(folder, postgres, redis, options.scale)
            prepare.begin(run.env(), f"http://127.0.0.1:{run.upstream}")
            if "workers" in wanted:
                workers(run)
            hosts = [Host(name, there, folder, run.env(here)) for name, there, here in made]
            if "hosts" in wanted:
                with serving(hosts, 1, run.upstream):
                    print("two hosts with a worker each", flush=True)
                    hosts_load(run, hosts)
            hosts = [Host(name, there, folder, run.env(here)) for name, there, here in made]
            if wanted & set(both):
                with serving(hosts, 2, run.upstream):
                    print("two hosts with two workers each", flush=True)
                    for part, work in both.items():
                        if part in wanted:
                            print(f" {part}", flush=True)
                            asyncio.run(work(run, hosts))
            print("books", flush=True)
            run.judge_books()
    if run.faults:
        sys.exit(f"{len(run.faults)} wrong")


if __name__ == "__main__":
    main()
