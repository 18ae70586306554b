"""Models whose upstreams speak responses, or chat alone."""

from __future__ import annotations

import pytest

from tests.endpoints.text.responses_upstream import Upstream
from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.upstream import Call, hello


@pytest.fixture
def native(live: Portal, server: Server) -> tuple[str, Upstream]:
    upstream = Upstream()
    model = live.model(upstream)
    server.catch_up()
    return model, upstream


@pytest.fixture
def chat_only(live: Portal, server: Server) -> str:
    """A model whose upstream speaks chat alone."""

    async def script(call: Call) -> None:
        assert call.path == "/v1/chat/completions"
        await hello(call)

    model = live.model(script, text_api="chat")
    server.catch_up()
    return model
