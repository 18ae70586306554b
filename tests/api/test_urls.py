"""The views of /v1."""

from __future__ import annotations

from typing import get_type_hints

from django.http.response import HttpResponseBase

from relay.api.urls import api


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
