"""A Redis that accepts connections and says nothing: nobody waits for it longer than its limit."""

from __future__ import annotations

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
from tests.services.stalled import stalled
from tests.support.sessions import with_config


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of such a Redis, with short limits."""
    monkeypatch.setattr(limits, "REDIS_SECONDS", 0.2)
    monkeypatch.setattr(limits, "READY_SECONDS", 0.2)
    with stalled() as server:
        yield f"redis://127.0.0.1:{server.port}/0"


async def test_limits(silent: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    limiter = RedisLimiter(silent)
    wanted = checks((Subject("token:1", "this token", Limits(rpm=10, concurrency=2)),))
    with pytest.raises(RelayUnavailable, match="cannot reach the Redis") as refused:
        await limiter.acquire(wanted, 0, "slot")
    assert refused.value.retry_after
    await limiter.finish(wanted, 0, 5, "slot", 0.0)
    limiter._slots["slot"] = ["key"]
    await limiter.renew(0.0)
    assert len(caplog.records) == 3 and all("Redis: " in record.message for record in caplog.records)
    assert not any(record.message.endswith(": ") for record in caplog.records), "it says what is wrong"
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


async def test_readiness(silent: str, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_config(settings, redis_url=silent)

    async def well() -> str:
        return ""

    monkeypatch.setattr(health, "_fault_of_database", well)
    answer = await health.readyz(RequestFactory().get("/readyz"))
    assert answer.status_code == 503 and b"Redis does not answer" in answer.content
