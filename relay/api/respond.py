from __future__ import annotations

import msgspec
from django.http import HttpResponse

_encode = msgspec.json.Encoder().encode


def json_response(content: object, status: int = 200) -> HttpResponse:
    """A response of JSON, encoded by msgspec."""
    return HttpResponse(_encode(content), status=status, content_type="application/json")
