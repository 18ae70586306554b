"""Counts the limits of `relay.gateway.limits.windows` in Redis for all workers, exactly as one worker does in memory.

All requests that begin and end while Redis answers the batch before are one call of a script, so that the more there
are, the less each of them costs. A worker has one batch under way; it is sent again until Redis has taken it, which
counts it once. The worker tells Redis every second that it lives, and which others of this machine do not; what a
killed one of another machine held is free `GONE_SECONDS` later.
A Redis that has lost what it knew is told by each worker what it holds, before anything else begins.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from hiredis import pack_command
from redis.asyncio import Redis
from redis.exceptions import RedisError

from portal import limits
from portal.lib.processes import is_dead, new_owner
from portal.services import redis
from relay.errors import RelayUnavailable
from relay.gateway.limits.script import COUNT, JOIN
from relay.gateway.limits.windows import TOKENS, Check, LimitVerdict

logger: Final = logging.getLogger(__name__)
GONE_SECONDS: Final = 20.0  # without a word of a worker, after which what it holds is free
_TELL_SECONDS: Final = 1.0  # between two words of a worker
_KEPT_SECONDS: Final = 60.0  # that a connection is used again after: what is between may have forgotten it
_WAIT_MS: Final = 2000  # that all wait for each other where Redis has lost what it knew
_PREFIX: Final = "airelays:limits:"
_MOST: Final = 500  # that begin, and that end, in one batch: Redis does nothing else meanwhile
_MOST_COUNTERS: Final = 2000  # in one batch, about: Redis passes at most 8,000 values to a command
_DOWN: Final = "The portal cannot use the Redis that its limits are counted in. Try again in a few seconds."

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(list[float]).decode


@dataclass(slots=True, eq=False)
class _Begin:
    """A request that waits to be counted."""

    wanted: Sequence[Check]
    tokens: int  # expected
    verdict: asyncio.Future[LimitVerdict]


@dataclass(slots=True, eq=False)
class _End:
    """A request that was counted and has ended."""

    counted: Sequence[Check]
    expected: int
    used: int | None  # tokens; None: as expected
    since: float


@dataclass(slots=True)
class _Batch:
    """What is counted in one call."""

    number: int
    tells: bool  # that the worker lives
    begins: list[_Begin] = field(default_factory=list)
    ended: dict[str, int] = field(default_factory=dict)  # requests at once, by counter
    places: dict[str, int] = field(default_factory=dict)  # of counters in it, from 1
    windows: list[float] = field(default_factory=list)  # of these, in order
    command: bytes = b""

    def place_of(self, key: str, window: float) -> int:
        place = self.places.get(key)
        if place is None:
            place = self.places[key] = len(self.places) + 1
            self.windows.append(window)
        return place


class RedisLimiter:
    """Counters that all workers share. Belongs to one event loop."""

    def __init__(self, url: str, prefix: str = _PREFIX, clock: Callable[[], float] | None = None) -> None:
        """`clock`: the time by which is counted; None: that of Redis, which all workers share."""
        self._redis: Any = Redis.from_url(url, **redis.options())
        self._connection: Any = None
        self._prefix, self._clock = prefix, clock
        self._worker = new_owner()
        self._sha = self._sha_of_join = ""
        self._begins: list[_Begin] = []
        self._ends: list[_End] = []
        self._batch: _Batch | None = None  # that is under way
        self._held: dict[str, int] = {}  # requests at once of this worker that Redis has counted, by counter
        self._number = 0  # of the last batch that Redis has taken
        self._joined = False  # this worker has been known to Redis
        self._told_at = 0.0  # when Redis last heard that it lives; as the others, by `time.monotonic()`
        self._used_at = 0.0  # when the connection was
        self._lost_at = 0.0  # since when Redis cannot be used, 0: it can
        self._away = False  # for so long that nobody waits for it any more
        self._wake: asyncio.Future[None] | None = None  # what the task waits for while there is nothing to do
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def acquire(self, wanted: Sequence[Check], tokens: int) -> LimitVerdict:
        """Count a request against all of its limits, or against none.

        Raises RelayUnavailable when Redis cannot be used: at once, unless it has just been found out.
        """
        if self._away:
            raise RelayUnavailable(_DOWN, retry_after=5)
        verdict: asyncio.Future[LimitVerdict] = asyncio.get_running_loop().create_future()
        self._begins.append(_Begin(wanted, tokens, verdict))
        self._work()
        return await verdict

    def finish(self, counted: Sequence[Check], expected: int, used: int | None, since: float) -> None:
        """A request ended that was counted at `since`: as in memory. Redis is told in the same turn of the loop."""
        self._ends.append(_End(counted, expected, used, since))
        self._work()

    async def settle(self) -> None:
        """Wait until Redis knows everything."""
        if self._task is not None:
            await self._idle.wait()

    async def close(self) -> None:
        """Tell Redis what has ended, and that this worker leaves."""
        if self._task is not None:
            if not self._away:
                await self._idle.wait()
            self._task.cancel()
            await asyncio.wait([self._task])
            if self._connection is not None and self._joined and not self._away:
                try:
                    async with asyncio.timeout(limits.REDIS_SECONDS):
                        await self._join(leave=True)
                except (RedisError, OSError) as error:
                    logger.warning("Redis was not told that this worker ends: %s", _said(error))
        if self._connection is not None:
            await self._connection.disconnect()

    # -- the task --------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        if self._wake is not None:
            if not self._wake.done():
                self._wake.set_result(None)
            self._wake = None
        elif self._task is None:
            self._task = asyncio.ensure_future(self._run())
        self._idle.clear()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not (self._begins or self._ends or self._batch or self._must_tell()):
                self._idle.set()
                self._wake = loop.create_future()
                timer = loop.call_later(_TELL_SECONDS, self._work) if self._held else None
                try:
                    await self._wake
                finally:
                    if timer is not None:
                        timer.cancel()
                continue
            try:
                await self._count()
            except Exception:  # nobody may wait for ever; the batch is tried again
                if not self._away:
                    logger.exception("limits cannot be counted")
                self._lost_at = self._lost_at or time.monotonic()
                self._refuse()
                await asyncio.sleep(limits.REDIS_RETRY_SECONDS)

    def _must_tell(self) -> bool:
        return bool(self._held) and time.monotonic() - self._told_at >= _TELL_SECONDS

    async def _count(self) -> None:
        """Send one batch until Redis has taken it."""
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(limits.REDIS_SECONDS):
                    if began - self._used_at >= _KEPT_SECONDS:
                        await self._disconnect()
                    if self._connection is None:
                        await self._connect()
                    self._used_at = began
                    if self._batch is None:
                        tells = time.monotonic() - self._told_at >= _TELL_SECONDS
                        self._batch = self._next_batch(tells, await self._ended_workers() if tells else [])
                    batch = self._batch
                    await self._connection.send_packed_command(batch.command, check_health=False)
                    reply = await self._connection.read_response(disable_decoding=True)
                    wait = 0 if reply is not None else await self._join()
            except (RedisError, OSError) as error:
                await self._disconnect()
                if self._lost_at:
                    await asyncio.sleep(limits.REDIS_RETRY_SECONDS)
                self._lose(error, began)
                continue
            self._lost_at = 0.0
            if self._away:
                self._away = False
                logger.info("limits are counted in Redis again")
            if reply is not None:
                self._take(batch, _unpack(reply))
                self._batch = None
                if batch.tells:
                    self._told_at = began
                return
            if wait:
                logger.warning("Redis has lost what it counted; running requests are counted again")
                await asyncio.sleep(wait / 1000)

    def _lose(self, error: Exception, began: float) -> None:
        """Redis cannot be used: requests wait a moment for one that is restarted, then all of them are refused."""
        self._lost_at = self._lost_at or began
        if time.monotonic() - self._lost_at >= limits.REDIS_WAIT_SECONDS:
            if not self._away:
                logger.error("limits cannot be counted: Redis: %s", _said(error))
            self._refuse()

    def _refuse(self) -> None:
        """Refuse all requests that wait. Those of them that Redis counts after all are given back then."""
        self._away = True
        for one in (*(self._batch.begins if self._batch is not None else ()), *self._begins):
            if not one.verdict.done():
                one.verdict.set_exception(RelayUnavailable(_DOWN, retry_after=5))
        self._begins.clear()

    # -- the connection --------------------------------------------------------------------------------------------

    async def _connect(self) -> None:
        connection = self._redis.connection_pool.make_connection()
        try:
            await connection.connect()
            for script in (COUNT, JOIN):
                await connection.send_command("SCRIPT", "LOAD", script)
                self._sha, self._sha_of_join = self._sha_of_join, _text(await connection.read_response())
            connection.socket_timeout = None  # batches have limits of their own, and these cost as much as the rest
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._connection = connection

    async def _disconnect(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.disconnect(nowait=True)

    async def _join(self, leave: bool = False) -> int:
        """Tell Redis who this is and what it holds, or that it leaves. Returns the milliseconds to wait."""
        now = -1.0 if self._clock is None else self._clock()
        wait = _WAIT_MS if self._joined and not leave else 0
        # One that tells what it holds, or did so just now, is not taken for gone.
        lost = bool(self._held) or time.monotonic() - self._told_at < GONE_SECONDS / 2
        given = (now, 0 if leave else GONE_SECONDS, wait, lost, [*self._held.values()])
        keys = [self._prefix + "workers", self._prefix + self._worker, *(self._prefix + key for key in self._held)]
        await self._connection.send_command(
            "EVALSHA", self._sha_of_join, len(keys), *keys, self._worker, self._number, _pack(given)
        )
        self._joined, self._told_at = True, time.monotonic()
        return int(await self._connection.read_response())

    # -- batches ---------------------------------------------------------------------------------------------------

    async def _ended_workers(self) -> list[str]:
        """Workers of this machine that Redis takes to be running."""
        await self._connection.send_command("ZRANGE", self._prefix + "workers", 0, -1)
        return [name for name in map(_text, await self._connection.read_response()) if is_dead(name)]

    def _next_batch(self, tells: bool, dead: list[str]) -> _Batch:
        """What waits to be counted. `tells`: it says that this worker lives, and the `dead` do not."""
        batch = _Batch(self._number + 1, tells)
        places, ended, place_of = batch.places, batch.ended, batch.place_of
        spent: list[float] = []
        taken = 0
        for end in self._ends[:_MOST]:
            taken += 1
            for check in end.counted:
                if not check.window:
                    ended[check.key] = ended.get(check.key, 0) + 1
                elif check.kind is TOKENS and end.used is not None:
                    more = end.used - check.cost(end.expected)
                    if more:
                        spent += (place_of(check.key, check.window), more, check.limit, end.since)
            if len(places) + len(ended) >= _MOST_COUNTERS:
                break
        del self._ends[:taken]
        counts: list[int] = []
        for key, number in ended.items():
            counts += (place_of(key, 0.0), number)
        wanted: list[int] = []
        taken = 0
        for one in self._begins[:_MOST]:
            taken += 1
            if one.verdict.done():
                continue  # its client has left
            batch.begins.append(one)
            wanted.append(len(one.wanted))
            for check in one.wanted:
                cost = check.cost(one.tokens) if check.kind is TOKENS else 1
                wanted += (place_of(check.key, check.window), check.limit, cost)
            if len(places) >= _MOST_COUNTERS:
                break
        del self._begins[:taken]
        now = -1.0 if self._clock is None else self._clock()
        keys = [self._prefix + "workers", self._prefix + self._worker, *(self._prefix + key for key in places)]
        given = _pack((now, GONE_SECONDS if tells else 0, batch.windows, counts, spent, wanted, dead))
        command: Any = ("EVALSHA", self._sha, len(keys), *keys, self._worker, batch.number, given)
        batch.command = pack_command(command)  # the client's own takes seven times as long
        return batch

    def _take(self, batch: _Batch, found: list[float]) -> None:
        """Redis has counted a batch: tell those that wait."""
        self._number, held, now, place = batch.number, self._held, found[0], 1
        for key, number in batch.ended.items():
            left = held.get(key, 0) - number
            if left > 0:
                held[key] = left
            else:
                held.pop(key, None)
        for one in batch.begins:
            refused, day = int(found[place]), None
            verdict = LimitVerdict(one.wanted[refused - 1] if refused else None, found[place + 1], now)
            place += 2
            for check in one.wanted:
                if not check.window:
                    if not refused:
                        held[check.key] = held.get(check.key, 0) + 1
                    continue
                day = verdict.take(check, int(found[place]), found[place + 1], day)
                place += 2
            if verdict.requests is None:
                verdict.requests = day
            if not one.verdict.done():
                one.verdict.set_result(verdict)
            elif not refused:  # nobody waits for it any more
                self._ends.append(_End(one.wanted, one.tokens, 0, now))


def _text(found: bytes | str) -> str:
    return found.decode() if isinstance(found, bytes) else found


def _said(error: Exception) -> str:
    return str(error) or "it does not answer"  # the text of a timeout is empty
