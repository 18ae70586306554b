"""A Redis that accepts connections and says nothing: nobody waits for it longer than its limit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.test import Client, RequestFactory

from portal import limits
from portal.services import redis
from portal.serving.probes import health
from relay.errors import RelayUnavailable
from relay.gateway.limits.redis import RedisLimiter
from relay.gateway.limits.windows import Limits, Subject, checks
from tests.services.stalled import refusing, stalled
from tests.support.sessions import with_config


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of such a Redis, with short limits."""
    monkeypatch.setattr(limits, "REDIS_SECONDS", 0.2)
    monkeypatch.setattr(limits, "REDIS_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(limits, "READY_SECONDS", 0.2)
    with stalled() as server:
        yield f"redis://127.0.0.1:{server.port}/0"


async def test_limits_of_one_that_hangs_are_waited_for_once(silent: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is asked again beside the requests, so that none of them has to find out."""
    limiter = RedisLimiter(silent)
    wanted = checks((Subject("token:1", "this token", Limits(rpm=10, concurrency=2)),))
    found = await asyncio.gather(*(limiter.acquire(wanted, 0) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(one, RelayUnavailable) and one.retry_after for one in found)
    asked = asyncio.ensure_future(limiter.acquire(wanted, 0))
    await asyncio.sleep(0)  # one turn of the loop is enough
    assert isinstance(asked.exception(), RelayUnavailable)
    limiter.finish(wanted, 0, 5, 0.0)
    await limiter.close()
    assert [record.message for record in caplog.records] == ["limits cannot be counted: Redis: it does not answer"]


@pytest.mark.parametrize("said", ["READONLY You can't write against a read only replica.", "LOADING Redis is loading"])
async def test_limits_of_one_that_takes_no_writes(
    said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "REDIS_WAIT_SECONDS", 0)
    wanted = checks((Subject("token:1", "this token", Limits(rpm=10)),))
    with refusing(said) as port:
        limiter = RedisLimiter(f"redis://127.0.0.1:{port}/0")
        with pytest.raises(RelayUnavailable, match="cannot use the Redis"):
            await limiter.acquire(wanted, 0)
        await limiter.close()
    assert len(caplog.records) == 1 and said.split(" ", 1)[1] in caplog.records[0].message


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
