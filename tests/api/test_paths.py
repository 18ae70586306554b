"""Paths as clients type them."""

from __future__ import annotations

import pytest

from relay.api.paths import relay_path


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1/models/", "/v1/models"),
        ("/v1//models", "/v1/models"),
        ("/v1/v1/models", "/v1/models"),
        ("/models", "/v1/models"),
        ("/models/openai/gpt-4", "/v1/models/openai/gpt-4"),
        ("/v1/chat/completions/models", "/v1/models"),
        ("/v1/models/chat/completions", "/v1/models/chat/completions"),
        ("/v1", "/v1"),
        ("/v1beta/models", "/v1beta/models"),
        ("/mj-fast/mj/submit/imagine", "/mj-fast/mj/submit/imagine"),
        ("/dashboard/billing/usage", "/v1/dashboard/billing/usage"),
        ("/", None),
        ("/admin/", None),
        ("/tokens/", None),
        ("/usage/", None),
        ("/accounts/login/", None),
        ("/static/portal/portal.css", None),
        ("/mjx", None),
    ],
)
def test_canonical_paths(typed: str, meant: str | None) -> None:
    assert relay_path(typed) == meant
