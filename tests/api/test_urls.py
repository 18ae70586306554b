"""The views of /v1."""

from __future__ import annotations

from typing import get_type_hints

import httpx
import pytest
from django.http.response import HttpResponseBase

from relay.api.errors import unknown_route
from relay.api.urls import api
from tests.support.server import Server


def test_every_view_returns_a_response_of_its_own() -> None:
    """Ninja's own response is one object for all requests, so nothing may be written to it."""
    views = [
        operation
        for _prefix, router in api._routers
        for view in router.path_operations.values()
        for operation in view.operations
    ]
    assert len(views) > 40
    for operation in views:
        returned = get_type_hints(operation.view_func)["return"]
        assert issubclass(returned, HttpResponseBase), operation.view_func
        assert operation.signature.response_arg is None


@pytest.mark.parametrize("path", ["/v1", "/v1/", "//v1"])
def test_the_base_url_answers_that_it_is_right(server: Server, path: str) -> None:
    answer = httpx.get(server.url + path, trust_env=False, timeout=30)
    assert answer.status_code == 200 and answer.json()["models"] == "/v1/models"
    assert httpx.post(server.url + path, trust_env=False, timeout=30).status_code == 404


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/mj/submit/imagine", "Midjourney"),
        ("/mj-fast/mj/submit/imagine", "Midjourney"),
        ("/v1/mj/submit/imagine", "Midjourney"),
        ("/suno/submit/music", "Suno"),
        ("/luma/generations", "Luma"),
        ("/kling/v1/videos", "Kling"),
    ],
)
def test_task_apis_that_are_not_served_are_named(path: str, name: str) -> None:
    error = unknown_route("POST", path)
    assert error.code == "not_implemented" and name in str(error) and "followed by /v1" not in str(error)
