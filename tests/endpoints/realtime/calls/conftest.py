"""Models whose calls over WebRTC go as scripts say."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.peers.calling import Calls
from tests.support.peers.realtime import RealtimeUpstream
from tests.support.portal import Portal
from tests.support.server import Server


@pytest.fixture(scope="module")
def taking() -> Iterator[RealtimeUpstream]:
    running = RealtimeUpstream()
    yield running
    running.stop()


@pytest.fixture
def calls(live: Portal, server: Server, taking: RealtimeUpstream) -> Calls:
    return Calls(live, server, taking)
