"""The metrics of several workers under load, of which one is killed: they are those of the usage records."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.asserts import until
from tests.support.environment import OwnDatabase
from tests.support.load.targets import family
from tests.support.portal import Portal
from tests.support.server import NO_CERTIFICATES, Server, free_port, serving
from tests.support.upstream import Call, completion

TOKEN = "3c1f2b9f7d5e4a6b8c0d1e2f3a4b5c6d"
COUNTED = {
    "airelays_requests_total": "count(*)", "airelays_input_tokens_total": "sum(input_tokens)",
    "airelays_output_tokens_total": "sum(output_tokens)", "airelays_cost_usd_total": "sum(cost)",
    "airelays_request_duration_seconds_count": "count(*)", "airelays_channel_requests_total": "count(*)",
}  # fmt: skip


async def hello(call: Call) -> None:
    await call.reply(200, completion())


def scraped(port: int, token: str = TOKEN) -> httpx.Response:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.get(
        f"http://127.0.0.1:{port}/metrics", headers=headers, trust_env=False, verify=NO_CERTIFICATES, timeout=60
    )


def sums(port: int) -> list[int]:
    """Of what has a usage record; money in nano-USD."""
    found: dict[str, int] = dict.fromkeys(COUNTED, 0)
    for metric in text_string_to_metric_families(scraped(port).text):
        for sample in metric.samples:
            if sample.name in found:
                found[sample.name] += round(sample.value * (10**9 if "usd" in sample.name else 1))
    return list(found.values())


def recorded(server: Server) -> list[int]:
    return [
        int(value or 0) for value in server.query(f"SELECT {', '.join(COUNTED.values())} FROM relay_usagerecord")[0]
    ]


def test_sums_are_those_of_the_records_although_a_worker_is_killed(
    live: Portal, own_database: OwnDatabase, tmp_path: Path
) -> None:
    model, own_port = live.model(hello, price={"input": 2, "output": 8}), free_port()
    token = live.token(live.user(balance=10**12))
    env = {**own_database.env, "AIRELAYS_METRICS_PORT": str(own_port), "AIRELAYS_METRICS_TOKEN": TOKEN}
    with serving(tmp_path / "log", "--workers", "2", env=env) as server:
        assert [scraped(own_port, "").status_code, scraped(own_port, "wrong").status_code] == [401, 401]
        assert httpx.get(f"{server.url}/metrics", trust_env=False, verify=NO_CERTIFICATES).status_code == 404
        until(lambda: scraped(own_port).status_code == 200)
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
        ended = threading.Event()

        def call() -> None:
            while not ended.is_set():
                try:
                    server.post(token, body)
                except httpx.HTTPError:  # the worker was killed
                    time.sleep(0.05)

        callers = [threading.Thread(target=call) for _ in range(4)]
        for caller in callers:
            caller.start()
        until(lambda: sums(own_port)[0] >= 20)
        before = sums(own_port)
        workers = [pid for pid in family(server.process.pid) if pid != server.process.pid]
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: sums(own_port)[0] >= before[0] + 20)
        ended.set()
        for caller in callers:
            caller.join()
        until(lambda: sums(own_port) == recorded(server))
        assert sums(own_port)[0] >= 40
        assert workers[1] in family(server.process.pid)
