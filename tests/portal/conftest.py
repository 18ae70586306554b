"""A relay that one person runs, for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.portal.airelays.personal import InDatabase, Relay, personal_relay
from tests.support.peers.plans.chatgpt import running_chatgpt
from tests.support.portal import Portal
from tests.support.upstream import Upstream


@pytest.fixture(scope="module")
def started(
    request: pytest.FixtureRequest, servers_database: InDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Relay]:
    """`RELAY` of the file: further settings of the relay."""
    env = getattr(request.module, "RELAY", {})
    with (
        running_chatgpt() as chatgpt,
        personal_relay(tmp_path_factory.mktemp("home"), chatgpt, servers_database, **env) as relay,
    ):
        yield relay


@pytest.fixture
def relay(started: Relay) -> Iterator[Relay]:
    """It, as it is at the beginning of each test."""
    chatgpt = started.chatgpt
    chatgpt.calls.clear()
    chatgpt.seen.clear()
    yield started
    chatgpt.headers, chatgpt.answers, chatgpt.events = {}, {}, None
    chatgpt.reject_access = False


@pytest.fixture
def own(started: Relay, servers_database: InDatabase, upstream: Upstream) -> Iterator[Any]:
    """Writes to the relay's database."""
    assert started.home.database is not None
    with servers_database(started.home.database.name):
        yield Portal(upstream)
