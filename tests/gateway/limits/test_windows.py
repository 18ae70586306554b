"""Limits: one suite for the counters in memory and those in Redis."""

from __future__ import annotations

import asyncio
import math
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from relay.gateway.limits.windows import EXACT, PARTS, Check, Limits, LimitVerdict, MemoryLimiter, Subject, checks
from tests.support.server import free_port

pytestmark = pytest.mark.shared


class Both:
    """The same calls for both kinds, with a moment that the test chooses."""

    def __init__(self, limiter: Any) -> None:
        self.limiter = limiter
        self.now = 1_700_000_000.0

    async def acquire(self, limits: Limits, tokens: int = 0, slot: str = "a", key: str = "token:1") -> LimitVerdict:
        wanted = checks((Subject(key, "this token", limits),))
        found = self.limiter.acquire(wanted, tokens, slot, self.now)
        return await found if asyncio.iscoroutine(found) else found  # type: ignore[no-any-return]

    async def finish(
        self, limits: Limits, expected: int = 0, used: int | None = None, slot: str = "a", since: float | None = None
    ) -> None:
        """`since`: when the request was counted; not given: now."""
        wanted = checks((Subject("token:1", "this token", limits),))
        found = self.limiter.finish(wanted, expected, used, slot, self.now if since is None else since, self.now)
        if asyncio.iscoroutine(found):
            await found


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    """The Redis of the suite, or one of its own where the program is installed."""
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        yield given
        return
    program = shutil.which("redis-server")
    if not program:
        pytest.skip("no redis-server here; “make services” installs it")
    port = free_port()
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
    )
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            import redis

            redis.Redis(port=port).ping()
            break
        except redis.exceptions.ConnectionError:
            time.sleep(0.05)
    yield f"redis://127.0.0.1:{port}/0"
    process.terminate()
    process.wait()


@pytest.fixture(params=["memory", "redis"])
async def both(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        yield Both(MemoryLimiter())
        return
    from relay.gateway.limits.redis import RedisLimiter

    limiter = RedisLimiter(request.getfixturevalue("redis_url"), prefix=f"test:{random.random()}:")
    yield Both(limiter)
    await limiter.close()


async def test_a_minute_holds_its_number_and_no_more(both: Both) -> None:
    limits = Limits(rpm=10)
    for left in range(9, -1, -1):
        verdict = await both.acquire(limits)
        assert verdict.refused is None and verdict.requests is not None
        assert (verdict.requests.limit, verdict.requests.remaining) == (10, left)
    verdict = await both.acquire(limits)
    assert verdict.refused is not None and verdict.refused.kind == "rpm"
    assert verdict.requests is not None and verdict.requests.remaining == 0


async def test_the_window_slides_over_the_full_minute(both: Both) -> None:
    """Sixty at the end of one minute do not make room for sixty at the beginning of the next."""
    limits = Limits(rpm=60)
    await both.acquire(limits)
    both.now += 59
    for _ in range(59):
        assert (await both.acquire(limits)).refused is None
    both.now += 2  # of the last minute, 59 still count
    granted = 0
    while (await both.acquire(limits)).refused is None:
        granted += 1
    assert granted == 1


@pytest.mark.parametrize(
    ("limits", "length"), [(Limits(rpm=1), 60), (Limits(rpm=3), 60), (Limits(rpd=1), 86_400), (Limits(rpd=3), 86_400)]
)
async def test_small_limits_are_what_they_say(both: Both, limits: Limits, length: int) -> None:
    """One a minute is one in every minute, not one in up to two."""
    number = limits.rpm or limits.rpd or 0
    for _ in range(3):
        for _ in range(number):
            assert (await both.acquire(limits)).refused is None
        verdict = await both.acquire(limits)
        assert verdict.refused is not None and verdict.retry_after == pytest.approx(length, abs=0.001)
        assert verdict.requests is not None and verdict.requests.reset == pytest.approx(length, abs=0.001)
        both.now += length - 0.01
        assert (await both.acquire(limits)).refused is not None
        both.now += 0.01


async def test_each_request_makes_room_by_itself(both: Both) -> None:
    limits = Limits(rpm=3)
    for _ in range(3):
        assert (await both.acquire(limits)).refused is None
        both.now += 10
    for _ in range(3):
        verdict = await both.acquire(limits)
        assert verdict.refused is not None and verdict.retry_after in (pytest.approx(30), pytest.approx(10))
        both.now += verdict.retry_after
        assert (await both.acquire(limits)).refused is None


async def test_no_minute_has_more_than_a_large_limit_and_nobody_waits_longer(both: Both) -> None:
    """More than a window holds one by one: those of the same second end together, with the last of them."""
    limits, granted, rng = Limits(rpm=200), [], random.Random(3)
    for _ in range(1500):
        both.now += rng.choice([0.01, 0.05, 0.4])
        verdict = await both.acquire(limits)
        if verdict.refused is None:
            granted.append(both.now)
        assert verdict.retry_after <= 60
        inside = sum(1 for moment in granted if moment > both.now - 60)
        assert inside <= 200
        if verdict.refused is not None:
            assert inside >= 200 - 30, "at most the requests of one second end late"
    if isinstance(both.limiter, MemoryLimiter):
        assert len(both.limiter._windows["token:1:rpm"].entries) <= EXACT + PARTS + 1


async def test_retry_after_is_the_moment_when_it_fits(both: Both) -> None:
    limits = Limits(rpm=5)
    for _ in range(5):
        await both.acquire(limits)
    both.now += 20
    verdict = await both.acquire(limits)
    assert verdict.refused is not None and verdict.retry_after == pytest.approx(40)
    both.now += verdict.retry_after - 0.5
    assert (await both.acquire(limits)).refused is not None
    both.now += 0.6
    assert (await both.acquire(limits)).refused is None


async def test_everything_is_back_after_a_window(both: Both) -> None:
    limits = Limits(rpm=3, rpd=1000)
    for _ in range(3):
        await both.acquire(limits)
    both.now += 60
    verdict = await both.acquire(limits)
    assert verdict.requests is not None and verdict.requests.remaining == 2


async def test_tokens_are_corrected_when_the_request_ends(both: Both) -> None:
    limits = Limits(tpm=1000)
    verdict = await both.acquire(limits, tokens=800)
    assert verdict.tokens is not None and verdict.tokens.remaining == 200
    assert (await both.acquire(limits, tokens=300)).refused is not None
    await both.finish(limits, expected=800, used=100)
    verdict = await both.acquire(limits, tokens=300)
    assert verdict.refused is None and verdict.tokens is not None and verdict.tokens.remaining == 600
    await both.finish(limits, expected=300, used=5000)
    assert (await both.acquire(limits, tokens=1)).refused is not None


async def test_a_request_larger_than_the_limit_runs_when_nothing_else_does(both: Both) -> None:
    limits = Limits(tpm=100)
    assert (await both.acquire(limits, tokens=5000)).refused is None
    assert (await both.acquire(limits, tokens=5000)).refused is not None


async def test_days_are_counted_beside_minutes(both: Both) -> None:
    limits = Limits(rpm=5, rpd=7)
    for _ in range(5):
        await both.acquire(limits)
    both.now += 60
    for _ in range(2):
        assert (await both.acquire(limits)).refused is None
    verdict = await both.acquire(limits)
    assert verdict.refused is not None and verdict.refused.kind == "rpd" and verdict.retry_after > 3600


async def test_slots_are_held_until_the_end(both: Both) -> None:
    limits = Limits(concurrency=2)
    assert (await both.acquire(limits, slot="a")).refused is None
    assert (await both.acquire(limits, slot="b")).refused is None
    verdict = await both.acquire(limits, slot="c")
    assert verdict.refused is not None and verdict.refused.kind == "slots" and verdict.retry_after >= 1
    await both.finish(limits, slot="a")
    assert (await both.acquire(limits, slot="c")).refused is None


async def test_all_or_nothing(both: Both) -> None:
    """What one limit refuses is not counted by the others."""
    limits = Limits(rpm=100, tpm=10, concurrency=5)
    await both.acquire(limits, tokens=10)
    for number in range(20):
        assert (await both.acquire(limits, tokens=10, slot=f"s{number}")).refused is not None
    verdict = await both.acquire(Limits(rpm=100))
    assert verdict.requests is not None and verdict.requests.remaining == 98
    for number in range(4):
        assert (await both.acquire(Limits(concurrency=5), slot=f"t{number}")).refused is None


async def test_what_a_request_did_not_use_is_given_back_only_while_it_counts(both: Both) -> None:
    """Otherwise many long requests that use little would make room for more than the limit."""
    limits, begun = Limits(tpm=1000), both.now
    await both.acquire(limits, tokens=800)
    both.now += 61
    assert (await both.acquire(limits, tokens=800)).refused is None
    await both.finish(limits, expected=800, used=10, since=begun)
    assert (await both.acquire(limits, tokens=300)).refused is not None, "the other request still counts in full"
    begun = both.now
    both.now += 30
    await both.finish(limits, expected=800, used=10, since=begun)
    assert (await both.acquire(limits, tokens=900)).refused is None


async def test_what_is_given_back_is_that_of_the_request_itself(both: Both) -> None:
    limits, begun = Limits(tpm=1000), both.now
    await both.acquire(limits, tokens=500)
    both.now += 30
    await both.acquire(limits, tokens=500)
    await both.finish(limits, expected=500, used=0, since=begun)
    both.now += 31
    verdict = await both.acquire(limits, tokens=0)
    assert verdict.tokens is not None and verdict.tokens.remaining == 500, "the later one counts for 29 more seconds"


async def test_a_limit_of_days_is_told_where_there_is_none_of_minutes(both: Both) -> None:
    verdict = await both.acquire(Limits(rpd=7))
    assert verdict.requests is not None and (verdict.requests.limit, verdict.requests.remaining) == (7, 6)
    assert verdict.requests.reset == 86_400
    verdict = await both.acquire(Limits(rpm=5, rpd=7))
    assert verdict.requests is not None and verdict.requests.limit == 5


async def test_of_several_limits_the_one_with_least_left_is_told(both: Both) -> None:
    for _ in range(2):
        await both.acquire(Limits(rpm=4), key="user:1")
    wanted = checks(
        (Subject("token:1", "this token", Limits(rpm=10)), Subject("user:1", "your account", Limits(rpm=4)))
    )
    for order in (wanted, wanted[::-1]):
        found = both.limiter.acquire(order, 0, "a", both.now)
        verdict = await found if asyncio.iscoroutine(found) else found
        assert verdict.requests.limit == 4
    assert verdict.requests.remaining == 0


def test_counters_that_say_nothing_any_more_are_dropped_and_those_of_days_kept_for_days(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from relay.gateway.limits import windows as module

    monkeypatch.setattr(module, "_MAX_KEYS", 2)
    limiter, now = MemoryLimiter(), 1_700_000_000.0
    wanted = checks((Subject("token:1", "this token", Limits(rpm=5, rpd=2)),))
    for later in (0.0, 600.0):
        assert limiter.acquire(wanted, 0, "a", now + later).refused is None
    limiter.acquire(checks((Subject("token:2", "another", Limits(rpm=5)),)), 0, "b", now + 3600)
    assert set(limiter._windows) == {"token:1:rpd", "token:2:rpm"}
    refused = limiter.acquire(wanted, 0, "a", now + 3600).refused
    assert refused is not None and refused.kind == "rpd"


async def test_memory_and_redis_say_the_same(redis_url: str) -> None:
    """Four hundred random steps: the same verdict, the same rooms, the same waits."""
    from relay.gateway.limits.redis import RedisLimiter

    redis = RedisLimiter(redis_url, prefix=f"test:{random.random()}:")
    memory = MemoryLimiter()
    rng = random.Random(7)
    limits = checks(
        (
            Subject("token:1", "this token", Limits(8, 500, 60, 3)),
            Subject("user:1", "your account", Limits(10, None, None, 4)),
        )
    )
    now = 1_700_000_000.0
    running: list[tuple[str, int, float]] = []
    for step in range(400):
        now += rng.choice([0.0, 0.01, 1.5, 20.0, 61.0])
        if running and rng.random() < 0.5:
            slot, tokens, since = running.pop(rng.randrange(len(running)))
            used = rng.choice([None, 0, 10, 400])
            memory.finish(limits, tokens, used, slot, since, now)
            await redis.finish(limits, tokens, used, slot, since, now)
            continue
        if now - 1_700_000_000.0 > 30 and len(running) > 2:
            continue
        tokens, slot = rng.randrange(300), f"slot-{step}"
        mine, theirs = memory.acquire(limits, tokens, slot, now), await redis.acquire(limits, tokens, slot, now)
        assert mine.refused == theirs.refused, step
        assert math.isclose(mine.retry_after, theirs.retry_after, abs_tol=0.01), step
        for one, other in ((mine.requests, theirs.requests), (mine.tokens, theirs.tokens)):
            assert one is not None and other is not None
            assert (
                one.limit == other.limit
                and one.remaining == other.remaining
                and math.isclose(one.reset, other.reset, abs_tol=0.01)
            ), step
        if mine.refused is None:
            assert mine.at == theirs.at
            running.append((slot, tokens, now))
            if len(running) == 3:  # slots of Redis expire after a minute; end them before
                for slot, tokens, since in running:
                    memory.finish(limits, tokens, None, slot, since, now)
                    await redis.finish(limits, tokens, None, slot, since, now)
                running.clear()
    await redis.close()


async def test_a_clock_that_is_put_back_stops_nobody(redis_url: str) -> None:
    """Redis counts by the time of its machine."""
    from relay.gateway.limits.redis import RedisLimiter

    limiter = RedisLimiter(redis_url, prefix=f"test:{random.random()}:")
    limits = checks((Subject("token:1", "this token", Limits(rpm=1)),))
    now = 1_700_000_000.0
    assert (await limiter.acquire(limits, 0, "a", now)).refused is None
    assert (await limiter.acquire(limits, 0, "a", now - 5)).refused is not None
    assert (await limiter.acquire(limits, 0, "a", now - 3600)).refused is None
    await limiter.close()


async def test_slots_of_a_killed_worker_come_back(redis_url: str) -> None:
    from relay.gateway.limits.redis import SLOT_SECONDS, RedisLimiter

    limiter = RedisLimiter(redis_url, prefix=f"test:{random.random()}:")
    limits = checks((Subject("token:1", "this token", Limits(concurrency=1)),))
    now = 1_700_000_000.0
    assert (await limiter.acquire(limits, 0, "a", now)).refused is None
    await limiter.renew(now + 40)
    assert (await limiter.acquire(limits, 0, "b", now + SLOT_SECONDS + 5)).refused is not None
    assert (await limiter.acquire(limits, 0, "b", now + 40 + SLOT_SECONDS + 5)).refused is None
    await limiter.close()


async def test_redis_that_is_away_is_a_clear_error() -> None:
    from relay.errors import RelayUnavailable
    from relay.gateway.limits.redis import RedisLimiter

    limiter = RedisLimiter(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(RelayUnavailable, match="Redis"):
        await limiter.acquire((Check("token:1:rpm", "rpm", "this token", 1, 60.0),), 0, "a")
    await limiter.finish(
        (Check("token:1:slots", "slots", "this token", 1, 0.0),), 0, None, "a", 0.0
    )  # tells the log, fails nobody
    await limiter.close()
