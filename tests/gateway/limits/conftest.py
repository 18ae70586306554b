from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.gateway.limits.counters import Both, RedisServer


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server here; “make services” installs it")
    server = RedisServer(program)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def redis_url(request: pytest.FixtureRequest) -> str:
    """The Redis of the suite, or one of its own where the program is installed."""
    given = os.environ.get("TEST_REDIS_URL")
    return given or str(request.getfixturevalue("redis_server").url)


@pytest.fixture(params=["memory", "redis"])
async def both(request: pytest.FixtureRequest) -> AsyncIterator[Both]:
    both = Both(request.getfixturevalue("redis_url") if request.param == "redis" else "")
    yield both
    await both.close()
