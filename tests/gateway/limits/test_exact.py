"""Limits are exact while many race for them: in memory, and in several processes that share a Redis."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right

import pytest
from redis import Redis

from relay.gateway.limits.redis import RedisLimiter
from relay.gateway.limits.windows import Check
from tests.gateway.limits import racers
from tests.gateway.limits.counters import prefix_of_test
from tests.gateway.limits.racers import Race, Request

WINDOW = 0.2  # seconds, in place of a minute
PROCESSES = 2


@pytest.fixture(params=["memory", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("redis_url")) if request.param == "redis" else ""


def race(of: Race) -> list[Request]:
    """The requests of all processes, in order."""
    of.prefix = prefix_of_test()
    if of.url:
        processes = [racers.start(of) for _ in range(PROCESSES)]
        found = [one for process in processes for one in racers.result(process)]
    else:
        found = asyncio.run(racers.run(of))
    return sorted(found, key=lambda one: one.at)


@pytest.mark.parametrize("limit", [1, 150])
def test_requests_in_any_window(url: str, limit: int) -> None:
    found = race(Race([Check("token:1:rpm", "rpm", "this token", limit, WINDOW)], 4 * WINDOW, tasks=12, url=url))
    begun = [one.at for one in found if not one.refused]
    refused = [one.at for one in found if one.refused]
    assert len(begun) > limit, "more than one window was seen"
    assert refused
    for number, at in enumerate(begun):
        assert bisect_right(begun, at) - bisect_right(begun, at - WINDOW) <= limit, number
    least = limit if limit < 128 else 0.99 * limit
    for at in refused:
        assert bisect_right(begun, at) - bisect_right(begun, at - WINDOW) >= least


@pytest.mark.parametrize("limit", [1, 3])
def test_requests_at_once(url: str, limit: int) -> None:
    found = race(Race([Check("token:1:slots", "slots", "this token", limit, 0.0)], 0.6, hold=0.004, url=url))
    begun = [one for one in found if not one.refused]
    assert len(begun) > 10 * limit
    ended, known = sorted(one.until for one in begun), sorted(one.known for one in begun)
    starts = [one.at for one in begun]
    for one in begun:
        running = bisect_right(starts, one.at) - bisect_left(ended, one.at)
        assert running <= limit, "until they ended, these ran at once"
    refused = [one.at for one in found if one.refused]
    assert refused
    for at in refused:
        assert bisect_right(starts, at) - bisect_left(known, at) >= limit, "these were not known to have ended"


async def test_requests_at_once_of_a_killed_process(redis_url: str) -> None:
    """Another worker of the machine sees that it has ended."""
    checks, prefix = [Check("token:1:slots", "slots", "this token", 5, 0.0)], prefix_of_test()
    killed = racers.start(Race(checks, 60, hold=10_000, tasks=3, url=redis_url, prefix=prefix))
    assert killed.stdout is not None
    for _ in range(3):
        assert killed.stdout.readline() == "begun\n"
    other = RedisLimiter(redis_url, prefix)
    assert [(await other.acquire(checks, 0)).refused is None for _ in range(3)] == [True, True, False]
    killed.kill()
    killed.communicate()
    for _ in range(1000):
        if (await other.acquire(checks, 0)).refused is None:
            break
        await asyncio.sleep(0.02)
    assert [(await other.acquire(checks, 0)).refused is None for _ in range(3)] == [True, True, False]
    with Redis.from_url(redis_url) as redis:
        assert redis.zcard(prefix + "workers") == 1, "it was not taken for gone because it said nothing"
    await other.close()
