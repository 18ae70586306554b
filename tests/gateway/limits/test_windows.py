"""Limits: one suite for the counters in memory and those in Redis."""

from __future__ import annotations

import random

import pytest

from relay.gateway.limits.windows import MOST, PARTS, SHARE, Limits, MemoryLimiter, Subject, checks
from tests.gateway.limits.counters import Both

pytestmark = pytest.mark.shared


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


@pytest.mark.parametrize("number", [50, 127, 128, 400])
async def test_no_minute_has_more_than_its_limit_or_less_than_99_of_100_while_somebody_waits(
    both: Both, number: int
) -> None:
    """In bursts too, of which each comes within one part of the window."""
    limits, granted, rng = Limits(rpm=number), [], random.Random(number)
    for _ in range(3 * number):
        both.now += rng.choice([0.0, 0.001, 0.05, 0.1 * 200 / number, 1.0 if rng.random() < 0.1 else 0.0])
        verdict = await both.acquire(limits)
        if verdict.refused is None:
            granted.append(both.now)
        assert verdict.retry_after <= 60
        inside = sum(1 for moment in granted[-number - 1 :] if moment > both.now - 60)
        assert inside <= number
        if verdict.refused is not None:
            assert inside >= 0.99 * number if number >= SHARE else inside == number
    if both.redis is None:
        assert len(both.memory._windows["token:1:rpm"].entries) <= 2 * SHARE + PARTS + 1


async def test_a_window_has_a_bounded_number_of_entries_whatever_requests_use() -> None:
    """They are counted in full when they end, although that is more than the limit."""
    limiter, now = MemoryLimiter(), 1_700_000_000.0
    wanted = checks((Subject("token:1", "this token", Limits(tpm=1000)),))
    for number in range(5_000):
        limiter.finish(wanted, 0, 900, now, now + number * 0.01)
    assert len(limiter._windows["token:1:tpm"].entries) <= MOST + PARTS + 1


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
    assert (await both.acquire(limits)).refused is None
    assert (await both.acquire(limits)).refused is None
    verdict = await both.acquire(limits)
    assert verdict.refused is not None and verdict.refused.kind == "slots" and verdict.retry_after >= 1
    await both.finish(limits)
    assert (await both.acquire(limits)).refused is None


async def test_all_or_nothing(both: Both) -> None:
    """What one limit refuses is not counted by the others."""
    limits = Limits(rpm=100, tpm=10, concurrency=5)
    await both.acquire(limits, tokens=10)
    for _ in range(20):
        assert (await both.acquire(limits, tokens=10)).refused is not None
    verdict = await both.acquire(Limits(rpm=100))
    assert verdict.requests is not None and verdict.requests.remaining == 98
    for _ in range(4):
        assert (await both.acquire(Limits(concurrency=5))).refused is None


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
    for left, order in ((1, wanted), (0, wanted[::-1])):
        verdict = await both.count(order)
        assert verdict.requests is not None and (verdict.requests.limit, verdict.requests.remaining) == (4, left)


def test_counters_that_say_nothing_any_more_are_dropped_and_those_of_days_kept_for_days(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from relay.gateway.limits import windows as module

    monkeypatch.setattr(module, "_MAX_KEYS", 2)
    limiter, now = MemoryLimiter(), 1_700_000_000.0
    wanted = checks((Subject("token:1", "this token", Limits(rpm=5, rpd=2)),))
    for later in (0.0, 600.0):
        assert limiter.acquire(wanted, 0, now + later).refused is None
    limiter.acquire(checks((Subject("token:2", "another", Limits(rpm=5)),)), 0, now + 3600)
    assert set(limiter._windows) == {"token:1:rpd", "token:2:rpm"}
    refused = limiter.acquire(wanted, 0, now + 3600).refused
    assert refused is not None and refused.kind == "rpd"


@pytest.mark.parametrize("limits", [Limits(rpm=0), Limits(tpm=0), Limits(rpd=0), Limits(concurrency=0)])
async def test_a_limit_of_nothing_admits_nothing(both: Both, limits: Limits) -> None:
    for tokens in (0, 100):
        verdict = await both.acquire(limits, tokens=tokens)
        assert verdict.refused is not None and verdict.retry_after >= 1


async def test_a_huge_limit_is_counted(both: Both) -> None:
    huge = Limits(rpm=2**31 - 1, tpm=2**31 - 1, rpd=2**31 - 1, concurrency=2**31 - 1)
    for left in (1, 2):
        verdict = await both.acquire(huge, tokens=2**30 - 1)
        assert verdict.refused is None and verdict.requests is not None and verdict.tokens is not None
        assert verdict.requests.remaining == 2**31 - 1 - left
    assert verdict.tokens is not None and verdict.tokens.remaining == 1
    assert (await both.acquire(huge, tokens=2)).refused is not None


async def test_a_limit_that_is_changed_counts_what_ran_before(both: Both) -> None:
    for _ in range(6):
        assert (await both.acquire(Limits(rpm=10, concurrency=10))).refused is None
    verdict = await both.acquire(Limits(rpm=2, concurrency=10))
    assert verdict.refused is not None and verdict.refused.kind == "rpm" and verdict.retry_after == pytest.approx(60)
    verdict = await both.acquire(Limits(rpm=10, concurrency=2))
    assert verdict.refused is not None and verdict.refused.kind == "slots"
    for _ in range(6):
        await both.finish(Limits(concurrency=10))
    assert (await both.acquire(Limits(rpm=7, concurrency=1))).refused is None
    assert (await both.acquire(Limits(rpm=7))).refused is not None
    assert (await both.acquire(Limits(rpm=8))).refused is None


async def test_a_limit_that_is_removed_and_set_again_counts_only_what_it_saw(both: Both) -> None:
    for _ in range(2):
        assert (await both.acquire(Limits(rpm=3, concurrency=3))).refused is None
    assert (await both.acquire(Limits())).refused is None
    assert (await both.acquire(Limits(concurrency=3))).refused is None
    verdict = await both.acquire(Limits(rpm=3))
    assert verdict.refused is None and verdict.requests is not None and verdict.requests.remaining == 0
    for _ in range(3):
        await both.finish(Limits(concurrency=3))
    await both.finish(Limits(concurrency=3))  # one that was begun without the limit
    for _ in range(3):
        assert (await both.acquire(Limits(concurrency=3))).refused is None
    assert (await both.acquire(Limits(concurrency=3))).refused is not None


async def test_the_limit_of_a_user_is_one_for_all_tokens(both: Both) -> None:
    user = Subject("user:1", "your account", Limits(rpm=3, concurrency=3))
    granted = 0
    for token in ("token:1", "token:2") * 3:
        wanted = checks((Subject(token, "this token", Limits(rpm=2)), user))
        granted += (await both.count(wanted)).refused is None
    assert granted == 3
