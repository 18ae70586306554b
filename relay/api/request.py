"""The request object of the relay stack: Django's, less the work that nobody here needs."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest
from django.utils.functional import cached_property

from portal.lib.json import Json, decode_object
from relay.errors import InvalidRequest
from relay.gateway.exchange import AsgiScope, Exchange
from relay.gateway.snapshot.callers import Caller


class RelayRequest(ASGIRequest):
    """Carries the exchange. META, cookies and query are made when somebody asks for them; the body is read through the exchange."""

    def __init__(self, scope: AsgiScope, path: str, exchange: Exchange) -> None:
        self.scope = scope
        self.path = self.path_info = path
        self.script_name = ""
        self.method = scope["method"].upper()
        self.exchange = exchange
        self.resolver_match = None
        self.content_type = None
        self.content_params = None
        self._stream = BytesIO()
        self._read_started = False
        self._post_parse_error = False

    @cached_property
    def META(self) -> dict[str, Any]:  # type: ignore[override]  # Django's name
        return ASGIRequest({**self.scope, "path": self.path}, BytesIO()).META


def exchange_of(request: HttpRequest) -> Exchange:
    """The exchange behind a request of the relay stack."""
    exchange: Exchange = request.exchange  # type: ignore[attr-defined]  # set by RelayRequest
    return exchange


def caller_of(request: HttpRequest) -> Caller:
    """Who calls, in endpoints that `token_auth` guards."""
    caller = exchange_of(request).caller
    assert caller is not None  # noqa: S101  # token_auth has run
    return caller


async def json_body(request: HttpRequest) -> Json:
    """A body that is a JSON object; nothing counts as an empty one. Raises RelayError."""
    body = await exchange_of(request).read_body(settings.CONFIG.max_body_bytes)
    if not body.strip():
        return {}
    found = decode_object(body)
    if found is None:
        raise InvalidRequest("The request body must be a JSON object.", code="invalid_json")
    return found
