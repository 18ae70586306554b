"""What is done to the portal and its servers during the run, and when."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from bench.everything.product import WORKERS, Product, rss_mib
from bench.everything.services import Postgres, Redis
from bench.everything.tariff import upstream_key

_KILL_EVERY, _REDIS_EVERY, _POSTGRES_EVERY, _DEAD_KEY_EVERY = 60.0, 240.0, 300.0, 180.0
_KILL_AT, _REDIS_AT, _POSTGRES_AT, _DEAD_KEY_AT = 30.0, 75.0, 140.0, 45.0  # the first, in seconds of the run
_KEEPS_OLDEST: Final = 1500.0  # seconds after which the oldest worker is killed, and not the youngest
_REPLACED_SECONDS: Final = 90.0  # until a worker that was killed has a successor
_DOWN: Final = 2.0  # seconds that Redis or PostgreSQL is away
_DOWN_LONG: Final = 25.0  # that PostgreSQL is away where a worker begins without it: longer than that waits
_DEAD: Final = 40.0  # that a key is refused
_QUIET: Final = 20.0  # before the end


@dataclass
class Event:
    """Something that was done, from when to when it could be noticed."""

    what: str  # kill, redis, postgresql, dead key
    at: float  # seconds since 1970
    until: float = 0.0
    detail: str = ""

    def touches(self, began: float, ended: float, before: float = 0.0, after: float = 0.0) -> bool:
        return began <= self.until + after and ended >= self.at - before


@dataclass
class Chaos:
    """Kills, restarts, dead keys; and the memory of the workers each minute."""

    product: Product
    postgres: Postgres
    redis: Redis
    http: aiohttp.ClientSession
    upstream: str  # its address
    events: list[Event] = field(default_factory=list)
    memory: dict[int, list[tuple[float, float]]] = field(default_factory=dict)  # by process: seconds of the run, MiB
    cpu: dict[int, float] = field(default_factory=dict)  # by process: seconds of processor time
    faults: list[str] = field(default_factory=list)  # what did not come back
    began_wall: float = 0.0
    _alone: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self, seconds: float) -> None:
        """Return after so long."""
        self.began_wall = time.time()
        self._began, self._until = time.monotonic(), time.monotonic() + seconds
        await self.upstreams(faults=True)
        works = [
            self._repeat(_KILL_AT, _KILL_EVERY, self._kill),
            self._repeat(_REDIS_AT, _REDIS_EVERY, self._restart_redis),
            self._repeat(_POSTGRES_AT, _POSTGRES_EVERY, self._restart_postgres),
            self._repeat(_DEAD_KEY_AT, _DEAD_KEY_EVERY, self._dead_key),
            self._repeat(5.0, 20.0 if seconds < 900 else 60.0, self._measure, quiet=0.0),
        ]
        await asyncio.gather(*works)
        await asyncio.sleep(max(0.0, self._until - time.monotonic()))
        await self.upstreams(faults=False)

    async def _repeat(self, first: float, every: float, work: Any, quiet: float = _QUIET) -> None:
        due, number = self._began + first, 0
        while due < self._until - quiet:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await work(number)
            due, number = due + every, number + 1

    async def upstreams(self, faults: bool, *dead: str) -> None:
        async with self.http.post(f"{self.upstream}/control", json={"faults": faults, "dead": dead}) as answer:
            await answer.read()

    async def _measure(self, _: int) -> None:
        self.product.restart_if_gone()
        self.look_at_cpu()
        for pid in self.product.workers():
            self.memory.setdefault(pid, []).append((round(time.monotonic() - self._began), round(rss_mib(pid), 1)))

    def look_at_cpu(self) -> None:
        self.cpu |= self.product.cpu(*self.postgres.process())

    async def _kill(self, _: int) -> None:
        """Kill a worker; noticed until another one is there and answers."""
        async with self._alone:
            event = self._kill_worker()
            await self._replaced(event)

    def _kill_worker(self) -> tuple[Event, int]:
        workers = self.product.workers()
        late = time.monotonic() - self._began > _KEEPS_OLDEST
        oldest = late and not any(event.detail == "the oldest" for event in self.events)
        victim = workers[0] if oldest else workers[-1]
        event = Event("kill", time.time(), detail="the oldest" if oldest else "the youngest")
        self.events.append(event)
        os.kill(victim, signal.SIGKILL)
        return event, victim

    async def _replaced(self, killed: tuple[Event, int]) -> None:
        """Wait until there is a new worker, and its housekeeping runs."""
        event, victim = killed
        until, listens = time.monotonic() + _REPLACED_SECONDS, False
        while not listens and time.monotonic() < until:
            await asyncio.sleep(0.2)
            self.product.restart_if_gone()
            workers = self.product.workers()
            if victim not in workers and len(workers) == WORKERS:
                listens = await asyncio.to_thread(self.product.keeps_house, workers[-1])
        if not listens:
            self.faults.append(f"no worker came for the one that was killed: {self.product.workers()}")
        if not await self.product.ready(self.http):
            self.faults.append("the portal was not ready again after a kill")
        event.until = time.time() + 2

    async def _restart_redis(self, _: int) -> None:
        async with self._alone:
            event = Event("redis", time.time())
            self.events.append(event)
            await asyncio.to_thread(self.redis.stop)
            await asyncio.sleep(_DOWN)
            await asyncio.to_thread(self.redis.start)
            if not await self.product.ready(self.http):
                self.faults.append("the portal was not ready again after Redis was restarted")
            event.until = time.time() + 2

    async def _restart_postgres(self, number: int) -> None:
        async with self._alone:
            mode = "fast" if number % 2 else "immediate"
            event = Event("postgresql", time.time(), detail=mode)
            self.events.append(event)
            await asyncio.to_thread(self.postgres.stop, mode)
            killed = None if number % 2 else self._kill_worker()  # its successor begins without a database
            await asyncio.sleep(_DOWN if killed is None else _DOWN_LONG)
            await asyncio.to_thread(self.postgres.start)
            if killed is not None:
                await self._replaced(killed)
            if not await self.product.ready(self.http):
                self.faults.append("the portal was not ready again after PostgreSQL was restarted")
            event.until = time.time() + 2

    async def _dead_key(self, number: int) -> None:
        channel = "abc"[number % 3]
        event = Event("dead key", time.time(), detail=f"of channel {channel}")
        self.events.append(event)
        await self.upstreams(True, upstream_key(channel, number % 2))
        await asyncio.sleep(max(0.0, min(_DEAD, self._until - time.monotonic() - 1)))
        with contextlib.suppress(aiohttp.ClientError):
            await self.upstreams(True)
        event.until = time.time()
