"""A Redis that accepts connections and says nothing: nobody waits for it longer than its limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.test import Client, RequestFactory

from portal import limits
from portal.services import redis
from portal.serving import health
from relay.errors import RelayUnavailable
from relay.gateway.limits.redis import RedisLimiter
from relay.gateway.limits.windows import Limits, Subject, checks
from tests.services.stalled import refusing, stalled
from tests.support.server import free_port
from tests.support.sessions import with_config


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of such a Redis, with short limits."""
    monkeypatch.setattr(limits, "REDIS_SECONDS", 0.2)
    monkeypatch.setattr(limits, "REDIS_AWAY_SECONDS", 600)
    monkeypatch.setattr(limits, "READY_SECONDS", 0.2)
    with stalled() as server:
        yield f"redis://127.0.0.1:{server.port}/0"


async def test_limits(silent: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    limiter = RedisLimiter(silent)
    wanted = checks((Subject("token:1", "this token", Limits(rpm=10, concurrency=2)),))
    with pytest.raises(RelayUnavailable, match="cannot use the Redis") as refused:
        await limiter.acquire(wanted, 0, "slot")
    assert refused.value.retry_after
    await limiter.finish(wanted, 0, 5, "slot", 0.0)
    limiter._slots["slot"] = ["key"]
    await limiter.renew(0.0)
    assert len(caplog.records) == 3 and all("Redis: " in record.message for record in caplog.records)
    assert not any(record.message.endswith(": ") for record in caplog.records), "it says what is wrong"
    await limiter.close()


async def test_one_that_hangs_is_waited_for_once(silent: str, caplog: pytest.LogCaptureFixture) -> None:
    limiter: Any = RedisLimiter(silent)
    asked = 0
    acquire = limiter._acquire

    async def ask(**arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return await acquire(**arguments)

    limiter._acquire = ask
    wanted = checks((Subject("channel:1", "this channel", Limits(rpm=10)),))
    for _ in range(3):
        with pytest.raises(RelayUnavailable, match="cannot use the Redis"):
            await limiter.acquire(wanted, 0, "slot")
    assert asked == 1 and len(caplog.records) == 1
    limiter._away_until = time.monotonic() - 1  # the time is over: one asks, the others do not wait for it
    found = await asyncio.gather(*(limiter.acquire(wanted, 0, "slot") for _ in range(5)), return_exceptions=True)
    assert asked == 2 and all(isinstance(one, RelayUnavailable) for one in found)
    limiter._away_until = time.monotonic() - 1

    async def answer(**arguments: Any) -> Any:
        return [0, b"0", b"0", b"1 60.0"]

    limiter._acquire = answer
    for _ in range(2):
        assert (await limiter.acquire(wanted, 0, "slot")).refused is None
    await limiter.close()


async def test_one_that_refuses_connections_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """That takes no time, and it is back in a second."""
    limiter = RedisLimiter(f"redis://127.0.0.1:{free_port()}/0")
    wanted = checks((Subject("channel:1", "this channel", Limits(rpm=10)),))
    for _ in range(2):
        with pytest.raises(RelayUnavailable):
            await limiter.acquire(wanted, 0, "slot")
    assert len(caplog.records) == 2
    await limiter.close()


def test_a_form_that_is_counted_says_what_is_away(silent: str, settings: Any, db: None) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": silent,
            "OPTIONS": redis.options(),
        }
    }
    assert "Redis" in type(caches["default"]).__name__
    browser = Client()
    assert browser.get("/accounts/login/").status_code == 200, "to show the form needs no Redis"
    answer = browser.post("/accounts/login/", {"login": "somebody", "password": "a long password"})
    assert answer.status_code == 503 and "Redis does not answer" in answer.content.decode() and answer["retry-after"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("READONLY You can't write against a read only replica.", "takes no writes"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "takes no writes"),
        (
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist on disk.",
            "no writes",
        ),
        ("NOREPLICAS Not enough good replicas to write.", "takes no writes"),
        ("LOADING Redis is loading the dataset in memory", "is starting"),
        ("NOAUTH Authentication required.", "does not let the portal in"),
        ("NOPERM User default has no permissions to run the 'set' command", "does not let the portal in"),
    ],
)
async def test_readiness_of_one_that_answers_and_takes_no_writes(
    settings: Any, monkeypatch: pytest.MonkeyPatch, said: str, told: str
) -> None:
    """Limits and sign-ins are counted in it, so that it answers is not enough."""

    async def well() -> str:
        return ""

    monkeypatch.setattr(health, "_fault_of_database", well)
    with refusing(said) as port:
        with_config(settings, redis_url=f"redis://127.0.0.1:{port}/0")
        answer = await health.readyz(RequestFactory().get("/readyz"))
        assert answer.status_code == 503 and told in answer.content.decode()
        assert b"does not answer" not in answer.content


def test_a_page_says_that_it_cannot_be_used(settings: Any, db: None, caplog: pytest.LogCaptureFixture) -> None:
    with refusing("READONLY You can't write against a read only replica.") as port:
        settings.CACHES = {
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": f"redis://127.0.0.1:{port}/0",
                "OPTIONS": redis.options(),
            }
        }
        answer = Client().post("/accounts/login/", {"login": "somebody", "password": "a long password"})
    assert answer.status_code == 503 and "Redis cannot be used now" in answer.content.decode()
    assert "the Redis cannot be used: You can't write" in caplog.text


async def test_readiness(silent: str, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_config(settings, redis_url=silent)

    async def well() -> str:
        return ""

    monkeypatch.setattr(health, "_fault_of_database", well)
    answer = await health.readyz(RequestFactory().get("/readyz"))
    assert answer.status_code == 503 and b"Redis does not answer" in answer.content
