"""The page of the API reference."""

from __future__ import annotations

from typing import Any

from tests.support.portal import People


def test_the_page_of_endpoints(people: People, client: Any, settings: Any) -> None:
    assert client.get("/docs/").status_code == 302
    client.force_login(people.owner)
    page = client.get("/docs/").content.decode()
    for path in ("/v1/chat/completions", "/v1/files/{file_id}/content", "/v1/realtime/client_secrets"):
        assert path in page
    settings.CONFIG = settings.CONFIG.model_copy(update={"openapi": "off"})
    assert client.get("/docs/").status_code == 404
