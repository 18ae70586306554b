"""A portal that is killed under priced load: the books balance, every whole answer is billed once."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from tests.support import environment, forks
from tests.support.asserts import until
from tests.support.money import COST
from tests.support.server import NO_CERTIFICATES, Server, serving
from tests.support.upstream import Upstream


def new_database(folder: Path) -> dict[str, str]:
    """Where the servers of one test keep their data: SQLite in the folder, or a database of its own on the suite's
    PostgreSQL.
    """
    return {
        "AIRELAYS_DATA_DIR": str(folder),
        "AIRELAYS_DATABASE_URL": environment.new_database(folder),
        "DJANGO_SETTINGS_MODULE": "portal.settings",
    }


def manage(env: dict[str, str], *arguments: str) -> str:
    done = forks.run(["manage.py", *arguments], env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def prepare(env: dict[str, str], upstream: Upstream, *amounts: int) -> list[str]:
    """Tokens of users with these balances, in nano-USD."""
    setup = ["-m", "tests.support.load.priced_setup", upstream.base_url, *map(str, amounts)]
    done = forks.run(setup, env)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


class Caller(threading.Thread):
    """Sends priced requests of all kinds until the server is gone; keeps the ids of the answers that it
    received whole.
    """

    def __init__(self, server: Server, tokens: list[str], seed: int) -> None:
        super().__init__(daemon=True)
        self.server, self.tokens, self.random = server, tokens, random.Random(seed)
        self.whole: list[str] = []
        self.unexpected: list[str] = []

    def run(self) -> None:
        with httpx.Client(timeout=20, trust_env=False, verify=NO_CERTIFICATES) as client:
            while True:
                stream = self.random.random() < 0.5
                body: dict[str, Any] = {
                    "model": self.random.choice(["plain", "slow"]),
                    "stream": stream,
                    "messages": [{"role": "user", "content": "x"}],
                }
                if self.random.random() < 0.5:
                    body["max_tokens"] = 20
                headers = {"authorization": f"Bearer {self.random.choice(self.tokens)}"}
                try:
                    with client.stream(
                        "POST", f"{self.server.v1}/chat/completions", json=body, headers=headers
                    ) as response:
                        if stream and self.random.random() < 0.2:
                            continue  # leaves
                        text = response.read()
                        if response.status_code == 200 and (not stream or text.endswith(b"data: [DONE]\n\n")):
                            self.whole.append(response.headers["x-request-id"])
                        elif response.status_code not in {200, 429, 503}:
                            self.unexpected.append(f"{response.status_code} {text[:200]!r}")
                except httpx.HTTPError:
                    if self.server.process.poll() is not None:
                        return


def kill_rounds(folder: Path, upstream: Upstream, rounds: int, workers: int = 1) -> int:
    """After each kill, restart and sweep: the books balance, every whole answer is billed once, nothing is reserved.

    Returns the answers.
    """
    import asyncio

    from tests.support.upstream import Call, chunk, hello

    async def slow(call: Call) -> None:
        if not call.json.get("stream"):
            await asyncio.sleep(0.05)
            await hello(call)
            return
        await call.open_stream()
        for _ in range(5):
            await call.event(chunk("word "))
            await asyncio.sleep(0.01)
        await call.event(chunk(None, "stop"))
        await call.event("[DONE]")
        await call.end()

    upstream.script("slow", slow)
    env = new_database(folder)
    tokens = prepare(env, upstream, 10**12, 10**9, 200 * COST)
    received: list[str] = []
    for number in range(rounds):
        with serving(folder / "log", "--workers", str(workers), env=env) as server:
            callers = [Caller(server, tokens, number * 100 + index) for index in range(10)]
            for caller in callers:
                caller.start()
            until(lambda callers=callers: sum(len(caller.whole) for caller in callers) > 12)  # type: ignore[misc]
            time.sleep(random.Random(number).random() / 2)  # anywhere in the midst of it
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
            for caller in callers:
                caller.join()
                assert not caller.unexpected, caller.unexpected
                received.extend(caller.whole)
            assert "The books balance." in manage(env, "ledger", "verify"), "before anything was swept"
            manage(env, "ledger", "sweep")
            said = manage(env, "ledger", "verify")
            assert "0 open reservations" in said and "The books balance." in said, said
            billed = {row[0] for row in server.query("SELECT request_id FROM relay_usagerecord WHERE cost > 0")}
            missing = set(received) - billed
            assert not missing, f"round {number}: {len(missing)} of {len(received)} whole answers were not billed"
    return len(received)
