"""Limits: one suite for the counters in memory and those in Redis, then over the wire."""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.gateway.limits.windows import Check, Limits, LimitVerdict, MemoryLimiter, Subject, checks
from tests.conftest import Portal, ask
from tests.support.server import Server, free_port, serving
from tests.support.upstream import Call, chunk

Limiter = Any


class Both:
    """The same calls for both kinds, with a moment that the test chooses."""

    def __init__(self, limiter: Any) -> None:
        self.limiter = limiter
        self.now = 1_700_000_000.0

    async def acquire(self, limits: Limits, tokens: int = 0, slot: str = "a", key: str = "token:1") -> LimitVerdict:
        wanted = checks((Subject(key, "this token", limits),))
        found = self.limiter.acquire(wanted, tokens, slot, self.now)
        return await found if asyncio.iscoroutine(found) else found  # type: ignore[no-any-return]

    async def finish(self, limits: Limits, expected: int = 0, used: int | None = None, slot: str = "a", key: str = "token:1") -> None:
        found = self.limiter.finish(checks((Subject(key, "this token", limits),)), expected, used, slot, self.now)
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
    process = subprocess.Popen([program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL)
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
    both.now += 2  # a new window, in which 59/60 of the one before still count
    granted = 0
    while (await both.acquire(limits)).refused is None:
        granted += 1
    assert granted <= 1


async def test_retry_after_is_the_moment_when_it_fits(both: Both) -> None:
    limits = Limits(rpm=5)
    for _ in range(5):
        await both.acquire(limits)
    both.now += 20
    verdict = await both.acquire(limits)
    assert verdict.refused is not None and 40 < verdict.retry_after <= 60
    both.now += verdict.retry_after - 0.5
    assert (await both.acquire(limits)).refused is not None
    both.now += 0.6
    assert (await both.acquire(limits)).refused is None


async def test_everything_is_back_after_two_windows(both: Both) -> None:
    limits = Limits(rpm=3, rpd=1000)
    for _ in range(3):
        await both.acquire(limits)
    both.now += 121
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
    both.now += 125
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


async def test_memory_and_redis_say_the_same(redis_url: str) -> None:
    """Four hundred random steps: the same verdict, the same rooms, the same waits."""
    from relay.gateway.limits.redis import RedisLimiter

    redis = RedisLimiter(redis_url, prefix=f"test:{random.random()}:")
    memory = MemoryLimiter()
    rng = random.Random(7)
    limits = checks((Subject("token:1", "this token", Limits(8, 500, 60, 3)), Subject("user:1", "your account", Limits(10, None, None, 4))))
    now = 1_700_000_000.0
    running: list[tuple[str, int]] = []
    for step in range(400):
        now += rng.choice([0.0, 0.01, 1.5, 20.0, 61.0])
        if running and rng.random() < 0.5:
            slot, tokens = running.pop(rng.randrange(len(running)))
            used = rng.choice([None, 0, 10, 400])
            memory.finish(limits, tokens, used, slot, now)
            await redis.finish(limits, tokens, used, slot, now)
            continue
        if now - 1_700_000_000.0 > 30 and len(running) > 2:
            continue
        tokens, slot = rng.randrange(300), f"slot-{step}"
        mine, theirs = memory.acquire(limits, tokens, slot, now), await redis.acquire(limits, tokens, slot, now)
        assert mine.refused == theirs.refused, step
        assert math.isclose(mine.retry_after, theirs.retry_after, abs_tol=0.01), step
        for one, other in ((mine.requests, theirs.requests), (mine.tokens, theirs.tokens)):
            assert one is not None and other is not None
            assert one.limit == other.limit and abs(one.remaining - other.remaining) <= 1 and math.isclose(one.reset, other.reset, abs_tol=0.01), step
        if mine.refused is None:
            running.append((slot, tokens))
            if len(running) == 3:  # slots of Redis expire after a minute; end them before
                for slot, tokens in running:
                    memory.finish(limits, tokens, None, slot, now)
                    await redis.finish(limits, tokens, None, slot, now)
                running.clear()
    await redis.close()


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
    await limiter.finish((Check("token:1:slots", "slots", "this token", 1, 0.0),), 0, None, "a")  # tells the log, fails nobody
    await limiter.close()


# -- over the wire -----------------------------------------------------------------------------------------------------


def test_headers_and_refusal_on_the_wire(live: Portal, server: Server) -> None:
    token = live.token()
    from relay.models import Token
    from relay.models.token import digest_of

    row = Token.objects.get(digest=digest_of(token))
    row.max_rpm, row.max_tpm = 2, 100_000
    row.save()
    model = live.model()
    first = server.post(token, ask(model))
    assert first.headers["x-ratelimit-limit-requests"] == "2" and first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-limit-tokens"] == "100000" and int(first.headers["x-ratelimit-remaining-tokens"]) > 99_000
    assert first.headers["x-ratelimit-reset-requests"] in {"2m0s", "1m59s"}
    assert server.post(token, ask(model)).status_code == 200
    refused = server.post(token, ask(model))
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded") and "2 requests a minute" in error["message"]
    assert 30 <= int(refused.headers["retry-after"]) <= 121 and refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert server.post(live.token(), ask(model)).headers.get("x-ratelimit-limit-requests") is None


@pytest.mark.parametrize("subject", ["user", "group", "member", "model"])
def test_limits_of_everything_that_a_request_passes_through(live: Portal, server: Server, subject: str) -> None:
    from django.contrib.auth.models import Group

    from accounts.models import GroupSettings
    from relay.models import Model

    user, other = live.user(), live.user()
    group = Group.objects.create(name=live.name("group"))
    user.groups.add(group)
    other.groups.add(group)
    model = live.model()
    if subject == "user":
        user.max_rpm = 1
        user.save()
    elif subject == "model":
        row = Model.objects.get(name=model)
        row.max_rpm = 1
        row.save()
    else:
        GroupSettings.objects.create(group=group, **({"max_rpm": 1} if subject == "group" else {"member_rpm": 1}))
    mine, second, theirs = live.token(user), live.token(user), live.token(other)
    assert server.post(mine, ask(model)).status_code == 200
    assert server.post(second, ask(model)).status_code == 429
    assert server.post(theirs, ask(model)).status_code == (429 if subject in {"group", "model"} else 200)


def test_a_stream_holds_its_slot_until_it_ends(live: Portal, server: Server) -> None:
    go = threading.Event()

    async def script(call: Call) -> None:
        await call.open_stream()
        await call.event(chunk("Hello"))
        await asyncio.to_thread(go.wait, 10)
        await call.event(chunk(None, "stop"))
        await call.event("[DONE]")
        await call.end()

    user = live.user(max_concurrency=1)
    model = live.model(script)
    token = live.token(user)
    server.catch_up()
    headers = {"authorization": f"Bearer {token}"}
    with httpx.stream("POST", f"{server.v1}/chat/completions", json=ask(model, stream=True), headers=headers, trust_env=False) as response:
        assert response.status_code == 200
        refused = server.post(token, ask(model))
        assert refused.status_code == 429 and refused.json()["error"]["code"] == "concurrency_limit_exceeded" and refused.headers["retry-after"]
        go.set()
        assert "[DONE]" in response.read().decode()
    until = time.monotonic() + 3
    while (status := server.post(token, ask(model, stream=True)).status_code) == 429 and time.monotonic() < until:
        time.sleep(0.05)
    assert status == 200


def test_a_channel_at_its_limit_is_passed_over(live: Portal, server: Server) -> None:
    full, open_channel = live.channel(priority=10, max_rpm=1), live.channel()
    model = live.model(channels=[full, open_channel])
    token = live.token()
    assert server.post(token, ask(model)).headers["x-relay-channel"] == str(full.pk)
    assert server.post(token, ask(model)).headers["x-relay-channel"] == str(open_channel.pk)
    alone = live.model(channels=[full])
    refused = server.post(token, ask(alone))
    assert refused.status_code == 429 and "limit" in refused.json()["error"]["message"] and refused.headers["retry-after"]
    assert live.record(refused).end_reason == "upstream_error"


def test_a_long_prompt_counts_before_it_is_sent(live: Portal, server: Server) -> None:
    user = live.user(max_tpm=2000)
    model = live.model()
    token = live.token(user)
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "word " * 1500}]}).encode()
    assert server.post(token, body).status_code == 200
    left = server.post(token, ask(model))
    assert left.status_code == 200, "the real usage of 16 tokens has replaced the estimate"


def test_redis_away_on_the_wire_and_on_the_pages(live: Portal, tmp_path: Path, django_db_setup: None) -> None:
    """Who has limits is told to come back; the others do not notice; sign-in says what is wrong instead of breaking."""
    model, free = live.model(), live.token()
    limited = live.token(live.user(max_rpm=100))
    with serving(tmp_path / "log", env={"AIRELAYS_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}) as server:
        headers = {"content-type": "application/json"}
        body = json.dumps(ask(model)).encode()
        refused = httpx.post(f"{server.v1}/chat/completions", content=body, headers={**headers, "authorization": f"Bearer {limited}"}, trust_env=False)
        assert refused.status_code == 503 and refused.json()["error"]["code"] == "relay_unavailable" and refused.headers["retry-after"]
        assert httpx.post(f"{server.v1}/chat/completions", content=body, headers={**headers, "authorization": f"Bearer {free}"}, trust_env=False).status_code == 200
        ready = httpx.get(f"{server.url}/readyz", trust_env=False)
        assert ready.status_code == 503 and ready.json()["problems"] == ["Redis does not answer"]
        with httpx.Client(base_url=server.url, trust_env=False) as browser:
            page = browser.get("/accounts/login/")
            form = {"login": "x", "password": "y", "csrfmiddlewaretoken": page.text.split('csrfmiddlewaretoken" value="', 1)[1].split('"', 1)[0]}
            answer = browser.post("/accounts/login/", data=form, headers={"referer": f"{server.url}/accounts/login/"})
            chinese = browser.post("/accounts/login/", data=form, headers={"referer": f"{server.url}/accounts/login/", "accept-language": "zh-CN"})
        assert chinese.status_code == 503 and 'lang="zh-hans"' in chinese.text and "Redis 没有应答" in chinese.text
        assert answer.status_code == 503 and "Redis does not answer" in answer.text and answer.headers["retry-after"]
