"""A portal whose channels have accounts of Google Cloud."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.peers.clouds.google_tokens import TokenEndpoint, issuing_tokens
from tests.support.server import Server, serving


@pytest.fixture(scope="module")
def tokens() -> Iterator[TokenEndpoint]:
    with issuing_tokens() as running:
        yield running


@pytest.fixture(scope="module")
def cloud(tokens: TokenEndpoint, django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A portal whose setting lets keys be shown to the test's token endpoint."""
    env = {"AIRELAYS_FEED_POLL_SECONDS": "0.05", "AIRELAYS_GOOGLE_TOKEN_URIS": tokens.url}
    with serving(tmp_path_factory.mktemp("vertex") / "log", env=env) as running:
        yield running
    assert "Traceback" not in running.log.read_text()
