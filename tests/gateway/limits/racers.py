"""Requests that race for limits, in the memory of one process or in several processes that share a Redis:
`python -m tests.gateway.limits.racers JSON`.

Each racer begins requests as quickly as it can and writes down when each began or was refused, by the clock of the
counters, and when it ended.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import Sequence

import msgspec

from relay.gateway.limits.redis import RedisLimiter
from relay.gateway.limits.windows import Check, LimitVerdict, MemoryLimiter
from tests.support.server import ROOT


class Race(msgspec.Struct):
    """What each process does."""

    checks: list[Check]
    seconds: float
    hold: float = 0.0  # seconds that a request runs, at most
    tasks: int = 4
    url: str = ""  # of the Redis; empty: in memory
    prefix: str = ""


class Request(msgspec.Struct):
    """A request of a racer."""

    at: float  # when it was counted, or refused
    refused: bool
    until: float = 0.0  # when it had ended, and not yet been told
    known: float = 0.0  # when the counters knew


class _Counters:
    """The counters of one process."""

    def __init__(self, race: Race) -> None:
        self.memory = MemoryLimiter()
        self.redis = RedisLimiter(race.url, race.prefix) if race.url else None

    async def acquire(self, wanted: Sequence[Check]) -> LimitVerdict:
        if self.redis is not None:
            return await self.redis.acquire(wanted, 0)
        await asyncio.sleep(0)
        return self.memory.acquire(wanted, 0, time.time())

    async def finish(self, wanted: Sequence[Check], since: float) -> None:
        if self.redis is not None:
            self.redis.finish(wanted, 0, None, since)
            await self.redis.settle()
        else:
            self.memory.finish(wanted, 0, None, since, time.time())


async def run(race: Race) -> list[Request]:
    found: list[Request] = []
    counters, until = _Counters(race), time.monotonic() + race.seconds
    rng = random.Random()

    def goes_on() -> bool:
        """For some time, and on a slow machine until a limit has been reached."""
        now = time.monotonic()
        return now < until or (now < until + 20 and not any(one.refused for one in found))

    async def racer() -> None:
        while goes_on():
            verdict = await counters.acquire(race.checks)
            request = Request(verdict.at, verdict.refused is not None)
            found.append(request)
            if not request.refused:
                print("begun", flush=True)
                await asyncio.sleep(rng.random() * race.hold)
                request.until = time.time()
                await counters.finish(race.checks, verdict.at)
                request.known = time.time()

    await asyncio.gather(*(racer() for _ in range(race.tasks)))
    if counters.redis is not None:
        await counters.redis.close()
    return found


def start(race: Race) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.gateway.limits.racers", msgspec.json.encode(race).decode()]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> list[Request]:
    """What a process has written down, once it has ended."""
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return msgspec.json.decode(output.splitlines()[-1], type=list[Request])


def main(text: str) -> None:
    race = msgspec.json.decode(text, type=Race)
    found = asyncio.run(run(race))
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main(sys.argv[1])
