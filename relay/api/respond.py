"""JSON responses."""

from __future__ import annotations

from django.http import HttpResponse

from portal.lib.json import encode


def json_response(content: object, status: int = 200) -> HttpResponse:
    """A JSON response, encoded by msgspec."""
    return HttpResponse(encode(content), status=status, content_type="application/json")


def base_url_object(version: str) -> dict[str, object]:
    """The answer of GET /v1: that a client's base URL is right, and what to call."""
    return {
        "object": "api",
        "name": "AIRelays Portal",
        "version": version,
        "message": "This is the base URL of the API. Requests need a token: Authorization: Bearer sk-…",
        "models": "/v1/models",
        "openapi": "/v1/openapi.json",
    }
