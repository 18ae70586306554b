"""Base URLs as people type them."""

from __future__ import annotations

import pytest

from tests.support.portal import Portal, ask
from tests.support.server import Server

pytestmark = pytest.mark.shared


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/",
        "//v1//chat/completions",
        "/v1/v1/chat/completions",
        "/chat/completions",
        "/v1/chat/completions/chat/completions",
        "/v1/chat/completions/v1/chat/completions",
    ],
)
def test_base_urls_that_people_type_work(server: Server, live: Portal, path: str) -> None:
    response = server.post(live.token(), ask(live.model()), path=path)
    assert response.status_code == 200, response.text
