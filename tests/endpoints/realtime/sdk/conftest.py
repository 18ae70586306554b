"""Models whose realtime upstream converses as OpenAI's does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.peers.realtime import RealtimeUpstream
from tests.support.peers.spoken import Realtime
from tests.support.portal import Portal
from tests.support.server import Server


@pytest.fixture(scope="module")
def upstream_of_realtime() -> Iterator[RealtimeUpstream]:
    running = RealtimeUpstream()
    yield running
    running.stop()


@pytest.fixture
def spoken(live: Portal, server: Server, upstream_of_realtime: RealtimeUpstream) -> Realtime:
    return Realtime(live, server, upstream_of_realtime)
