"""JSON responses."""

from __future__ import annotations

from django.http import HttpResponse

from portal.lib.json import encode


def json_response(content: object, status: int = 200) -> HttpResponse:
    """A JSON response, encoded by msgspec."""
    return HttpResponse(encode(content), status=status, content_type="application/json")
