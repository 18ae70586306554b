"""Counters in memory and in Redis with the same calls, and a Redis of their own."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import time
from collections.abc import Sequence

from redis import Redis
from redis.exceptions import RedisError

from relay.gateway.limits.redis import RedisLimiter
from relay.gateway.limits.windows import Check, Limits, LimitVerdict, MemoryLimiter, Subject, checks
from tests.support.server import free_port

BEGUN_AT = 1_700_000_000.0


class RedisServer:
    """A Redis of one test file, that saves nothing."""

    def __init__(self, program: str) -> None:
        self.program, self.port = program, free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command = [self.program, "--port", str(self.port), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 10
        with Redis(port=self.port) as client:
            while time.monotonic() < until:
                try:
                    client.ping()
                    return
                except RedisError:
                    time.sleep(0.05)
        raise AssertionError("Redis did not start")

    def stop(self) -> None:
        """As after a crash."""
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()

    def hang(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


class Both:
    """The same calls for both kinds, with a moment that the test chooses."""

    def __init__(self, redis_url: str = "") -> None:
        self.now = BEGUN_AT
        self.memory = MemoryLimiter()
        self.redis = RedisLimiter(redis_url, prefix_of_test(), lambda: self.now) if redis_url else None

    async def count(self, wanted: Sequence[Check], tokens: int = 0) -> LimitVerdict:
        if self.redis is None:
            return self.memory.acquire(wanted, tokens, self.now)
        return await self.redis.acquire(wanted, tokens)

    async def acquire(self, limits: Limits, tokens: int = 0, key: str = "token:1") -> LimitVerdict:
        return await self.count(checks((Subject(key, "this token", limits),)), tokens)

    async def finish(
        self, limits: Limits, expected: int = 0, used: int | None = None, since: float | None = None
    ) -> None:
        """`since`: when the request was counted; not given: now."""
        wanted = checks((Subject("token:1", "this token", limits),))
        since = self.now if since is None else since
        if self.redis is None:
            self.memory.finish(wanted, expected, used, since, self.now)
        else:
            self.redis.finish(wanted, expected, used, since)
            await self.redis.settle()

    async def close(self) -> None:
        if self.redis is not None:
            async with asyncio.timeout(10):
                await self.redis.close()


def prefix_of_test() -> str:
    return f"test:{random.random()}:"
