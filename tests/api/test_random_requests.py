"""No request, however odd, is answered with a 500."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.portal import Portal
from tests.support.server import Server
from tests.support.strategies import FIELDS, JSON_VALUES, TEXT


@pytest.fixture
def fuzzed(server: Server, live: Portal) -> Any:
    model, token = live.model(), live.token()
    server.catch_up()
    client = httpx.Client(
        base_url=server.url, headers={"authorization": f"Bearer {token}"}, trust_env=False, timeout=20
    )
    yield client, model
    client.close()


def test_random_bodies_never_give_a_500(fuzzed: Any) -> None:
    client, model = fuzzed

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.binary(max_size=100)
        | st.builds(
            lambda value: json.dumps(value).encode(),
            st.dictionaries(FIELDS | TEXT, JSON_VALUES | st.just(model), max_size=6),
        )
    )
    def attack(body: bytes) -> None:
        response = client.post("/v1/chat/completions", content=body)
        assert response.status_code in {200, 400, 404}, response.text
        if response.status_code != 200:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    attack()


def test_random_paths_and_methods_never_give_a_500_or_html(fuzzed: Any) -> None:
    client, _ = fuzzed
    segments = st.sampled_from(
        ["v1", "models", "chat", "completions", "", "%2F", "é", "x" * 300, "messages", "responses"]
    )

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.lists(segments, max_size=6), st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
    )
    def attack(path: list[str], method: str) -> None:
        response = client.request(method, "/v1/" + "/".join(path))
        assert response.status_code in {200, 204, 400, 404, 405}, (method, path, response.status_code)
        assert "html" not in response.headers.get("content-type", "")

    attack()
