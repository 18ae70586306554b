"""Limits in Redis: what workers, connections and Redis itself can lose."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncIterator

import pytest
from redis import Redis

from portal import limits
from relay.errors import RelayUnavailable
from relay.gateway.limits import redis as module
from relay.gateway.limits.redis import GONE_SECONDS, RedisLimiter
from relay.gateway.limits.windows import Check, Limits, MemoryLimiter, Subject, checks
from tests.gateway.limits.counters import BEGUN_AT, Both, RedisServer, prefix_of_test
from tests.support.server import free_port

THREE = checks((Subject("token:1", "this token", Limits(concurrency=3)),))


class Workers:
    """Workers that share a Redis and a clock that the test moves."""

    def __init__(self, url: str) -> None:
        self.url, self.prefix, self.now = url, prefix_of_test(), BEGUN_AT
        self.all: list[RedisLimiter] = []

    def worker(self, url: str = "") -> RedisLimiter:
        self.all.append(RedisLimiter(url or self.url, self.prefix, lambda: self.now))
        return self.all[-1]


@pytest.fixture
async def workers(redis_url: str) -> AsyncIterator[Workers]:
    found = Workers(redis_url)
    yield found
    for worker in found.all:
        async with asyncio.timeout(10):
            await worker.close()


async def granted(worker: RedisLimiter, wanted: tuple[Check, ...] = THREE, most: int = 10) -> int:
    """The requests that begin until one is refused."""
    for number in range(most):
        if (await worker.acquire(wanted, 0)).refused is not None:
            return number
    return most


def kill(worker: RedisLimiter) -> None:
    """As the process with `kill -9`: it says nothing more."""
    assert worker._task is not None
    worker._task.cancel()
    worker._joined = False


@contextlib.asynccontextmanager
async def line_to(port: int) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A line to Redis that breaks before a reply as often as the list has entries; with its address."""
    breaks: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)

        async def answers() -> None:
            while data := await there.read(65536):
                if breaks:
                    breaks.pop()
                    break
                writer.write(data)
            writer.close()

        task = asyncio.ensure_future(answers())
        while data := await reader.read(65536):
            back.write(data)
        back.close()
        await task
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0", breaks
    server.close()


@pytest.mark.shared
async def test_memory_and_redis_say_the_same(redis_url: str) -> None:
    """Random steps: the same verdict, the same remainders, the same waits."""
    both, memory, rng = Both(redis_url), MemoryLimiter(), random.Random(7)
    redis = both.redis
    assert redis is not None
    wanted = checks(
        (
            Subject("token:1", "this token", Limits(8, 500, 60, 3)),
            Subject("user:1", "your account", Limits(10, None, None, 4)),
            Subject("group:1", "the group", Limits(None, 40_000, 1_000, None)),
        )
    )
    running: list[tuple[int, float]] = []
    for step in range(1000):
        both.now += rng.choice([0.0, 0.01, 1.5, 20.0 if rng.random() < 0.2 else 0.2])
        if running and rng.random() < 0.5:
            tokens, since = running.pop(rng.randrange(len(running)))
            used = rng.choice([None, 0, 10, 400])
            memory.finish(wanted, tokens, used, since, both.now)
            redis.finish(wanted, tokens, used, since)
            await redis.settle()
            continue
        tokens = rng.randrange(300)
        mine, theirs = memory.acquire(wanted, tokens, both.now), await redis.acquire(wanted, tokens)
        assert mine.refused == theirs.refused, step
        assert math.isclose(mine.retry_after, theirs.retry_after, abs_tol=1e-6), step
        for one, other in ((mine.requests, theirs.requests), (mine.tokens, theirs.tokens)):
            assert one is not None and other is not None
            assert (one.limit, one.remaining) == (other.limit, other.remaining), step
            assert math.isclose(one.reset, other.reset, abs_tol=1e-6), step
        if mine.refused is None:
            assert mine.at == theirs.at
            running.append((tokens, both.now))
    await both.close()


@pytest.mark.shared
async def test_requests_of_one_turn_are_one_call(redis_url: str, workers: Workers) -> None:
    worker = workers.worker()
    await worker.acquire(THREE, 0)

    async def end() -> None:
        worker.finish(THREE, 0, None, workers.now)

    with Redis.from_url(redis_url) as redis:
        before = redis.info("commandstats")["cmdstat_evalsha"]["calls"]
        *found, _ = await asyncio.gather(*(worker.acquire(THREE, 0) for _ in range(50)), end())
        assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 1
    assert sum(verdict.refused is None for verdict in found if verdict) == 3, "what ended in that turn made room"


async def test_more_counters_than_redis_takes_at_once(workers: Workers) -> None:
    worker = workers.worker()
    each = [checks((Subject(f"token:{number}", "this token", Limits(concurrency=1, tpm=9)),)) for number in range(5000)]
    for _ in range(2):
        found = await asyncio.gather(*(worker.acquire(wanted, 5) for wanted in each))
        assert all(verdict.refused is None for verdict in found)
        for wanted in each:
            worker.finish(wanted, 5, 0, workers.now)
        await worker.settle()


@pytest.mark.parametrize("most", ["_MOST", "_MOST_COUNTERS"])
async def test_more_than_a_batch_holds(workers: Workers, monkeypatch: pytest.MonkeyPatch, most: str) -> None:
    monkeypatch.setattr(module, most, 1)
    worker, wanted = workers.worker(), checks((Subject("token:1", "this token", Limits(rpm=60, concurrency=60)),))
    for _ in range(2):
        found = await asyncio.gather(*(worker.acquire(wanted, 0) for _ in range(100)))
        assert sum(verdict.refused is None for verdict in found) == 60
        for _ in range(60):
            worker.finish(wanted, 0, None, workers.now)
        workers.now += 60


@pytest.mark.shared
async def test_a_clock_that_is_put_back_stops_nobody(workers: Workers) -> None:
    """Redis counts by the time of its machine."""
    worker, wanted = workers.worker(), checks((Subject("token:1", "this token", Limits(rpm=1)),))
    assert await granted(worker, wanted) == 1
    workers.now -= 5
    assert await granted(worker, wanted) == 0
    workers.now -= 3600
    assert await granted(worker, wanted) == 1


@pytest.mark.shared
async def test_what_a_killed_worker_held_comes_back_and_not_before(workers: Workers) -> None:
    killed, other = workers.worker(), workers.worker()
    assert (await killed.acquire(THREE, 0)).refused is None
    assert (await killed.acquire(THREE, 0)).refused is None
    kill(killed)
    assert await granted(other) == 1
    workers.now += GONE_SECONDS - 1
    other._told_at = 0.0  # it looks for workers that are gone when it says that it lives
    assert await granted(other) == 0
    workers.now += 2
    other._told_at = 0.0
    assert await granted(other) == 2
    for _ in range(3):
        other.finish(THREE, 0, None, workers.now)
    assert await granted(other) == 3


@pytest.mark.shared
async def test_a_worker_that_was_taken_for_gone_still_holds_what_it_holds(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WAIT_MS", 20)
    slow, other = workers.worker(), workers.worker()
    assert (await slow.acquire(THREE, 0)).refused is None
    workers.now += GONE_SECONDS + 1
    slow._told_at = math.inf  # as if its loop had stood still
    assert await granted(other) == 3
    slow._told_at = 0.0
    assert await granted(slow) == 0
    slow.finish(THREE, 0, None, workers.now)
    assert await granted(slow) == 0, "the others have three"
    other.finish(THREE, 0, None, workers.now)
    await other.settle()
    assert await granted(slow) == 1


@pytest.mark.shared
async def test_a_worker_that_had_nothing_to_say_is_not_waited_for(workers: Workers) -> None:
    quiet, other = workers.worker(), workers.worker()
    assert (await quiet.acquire(THREE, 0)).refused is None
    quiet.finish(THREE, 0, None, workers.now)
    await quiet.settle()
    workers.now += GONE_SECONDS + 1
    quiet._told_at -= GONE_SECONDS + 1
    assert (await other.acquire(THREE, 0)).refused is None
    workers.now += GONE_SECONDS / 2
    other._told_at = 0.0
    assert (await other.acquire(THREE, 0)).refused is None
    with Redis.from_url(workers.url) as redis:
        assert redis.zcard(workers.prefix + "workers") == 1
        assert await granted(quiet) == 1
        assert not redis.exists(workers.prefix + "wait")


@pytest.mark.shared
async def test_a_worker_that_ends_gives_back_what_it_held(workers: Workers) -> None:
    leaving, other = workers.worker(), workers.worker()
    assert await granted(leaving) == 3
    assert await granted(other) == 0
    await leaving.close()
    assert await granted(other) == 3


async def test_a_redis_that_has_lost_everything_is_told_by_all_before_anything_begins(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TELL_SECONDS", 0.05)
    workers = Workers(redis_server.url)
    first, second, wanted = workers.worker(), workers.worker(), (*THREE, *checks(
        (Subject("token:1", "this token", Limits(rpm=100)),)
    ))  # fmt: skip
    assert (await first.acquire(wanted, 0)).refused is None
    assert (await second.acquire(wanted, 0)).refused is None
    redis_server.stop()
    waiting = asyncio.ensure_future(first.acquire(wanted, 0))
    await asyncio.to_thread(redis_server.start)
    verdict = await waiting
    assert verdict.refused is None and verdict.requests is not None and verdict.requests.remaining == 99
    assert await granted(first, wanted) == 0, "the other worker's was counted before the new one began"
    for worker in (first, second, first):
        worker.finish(wanted, 0, None, workers.now)
        await worker.settle()
    assert await granted(second, wanted) == 3
    with Redis.from_url(redis_server.url) as redis:
        assert int(redis.get(workers.prefix + "token:1:slots") or 0) == 3
    for worker in workers.all:
        await worker.close()


@pytest.mark.parametrize("lost", ["reply", "twice"])
async def test_what_is_sent_again_is_counted_once(workers: Workers, redis_server: RedisServer, lost: str) -> None:
    async with line_to(redis_server.port) as (url, breaks):
        worker = workers.worker(url)
        wanted = checks((Subject("token:7", "this token", Limits(rpm=2, concurrency=2)),))
        assert (await worker.acquire(wanted, 0)).refused is None
        breaks += [b""] * (1 if lost == "reply" else 2)
        verdict = await worker.acquire(wanted, 0)
        assert verdict.refused is None and not breaks, "it is the second of two, not the third"
        breaks.append(b"")
        worker.finish(wanted, 0, None, workers.now)
        await worker.settle()
        workers.now += 60
        assert await granted(worker, wanted) == 1, "one ended, one runs"
        await worker.close()


async def test_a_request_whose_client_left_while_it_was_counted_holds_nothing(workers: Workers) -> None:
    worker = workers.worker()
    await worker.acquire(THREE, 0)
    requests = [asyncio.ensure_future(worker.acquire(THREE, 0)) for _ in range(5)]
    await asyncio.sleep(0)
    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)
    await worker.settle()
    assert await granted(worker) == 2


async def test_a_redis_that_is_away_refuses_at_once_after_a_moment_and_is_used_when_it_is_back(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "REDIS_WAIT_SECONDS", 0.3)
    workers = Workers(redis_server.url)
    worker = workers.worker()
    assert await granted(worker) == 3
    redis_server.stop()
    with pytest.raises(RelayUnavailable, match="Redis") as refused:
        await worker.acquire(THREE, 0)
    assert refused.value.retry_after
    before = worker._begins
    with pytest.raises(RelayUnavailable):
        await worker.acquire(THREE, 0)
    assert not before, "the second does not wait"
    worker.finish(THREE, 0, None, workers.now)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    redis_server.start()
    await worker.settle()
    assert await granted(worker) == 1, "what ended meanwhile is known"
    await worker.close()


async def test_one_that_cannot_be_reached_at_all(caplog: pytest.LogCaptureFixture) -> None:
    worker = RedisLimiter(f"redis://127.0.0.1:{free_port()}/0")
    for _ in range(2):
        with pytest.raises(RelayUnavailable, match="Redis"):
            await worker.acquire(THREE, 0)
    worker.finish(THREE, 0, None, 0.0)
    async with asyncio.timeout(5):
        await worker.close()
    assert len(caplog.records) == 1


async def test_a_connection_that_redis_has_closed_is_made_again(
    workers: Workers, redis_server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = workers.worker(redis_server.url)
    assert (await worker.acquire(THREE, 0)).refused is None
    with Redis.from_url(redis_server.url) as redis:
        redis.client_kill_filter(_type="normal", skipme=True)
        assert (await worker.acquire(THREE, 0)).refused is None
        before = redis.info("stats")["total_connections_received"]
        monkeypatch.setattr(module, "_KEPT_SECONDS", 0)
        assert await granted(worker) == 1
        assert redis.info("stats")["total_connections_received"] > before, "one that was not used for long, neither"
    assert not caplog.records


async def test_scripts_that_redis_has_forgotten_are_loaded_again(workers: Workers, redis_server: RedisServer) -> None:
    worker = workers.worker(redis_server.url)
    assert (await worker.acquire(THREE, 0)).refused is None
    with Redis.from_url(redis_server.url) as redis:
        redis.script_flush()
    assert await granted(worker) == 2
