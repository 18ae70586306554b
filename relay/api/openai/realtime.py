"""POST /v1/realtime/client_secrets and /v1/realtime/sessions. The websocket itself is `relay.api.consumers`."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Router

from relay.api.auth import token_auth
from relay.api.request import caller_of, exchange_of, json_body
from relay.api.respond import json_response
from relay.gateway.access.short_lived_keys import make_client_secret, make_session

router = Router(auth=token_auth)


@router.post("/realtime/client_secrets", url_name="realtime-client-secrets")
async def create_client_secret(request: HttpRequest) -> HttpResponse:
    """A secret by which a browser may open a realtime connection for a while, in this token's name."""
    return json_response(make_client_secret(caller_of(request), await json_body(request), exchange_of(request).wall))


@router.post("/realtime/sessions", url_name="realtime-sessions")
async def create_session(request: HttpRequest) -> HttpResponse:
    """The same in the older form: the session with its secret in it."""
    return json_response(make_session(caller_of(request), await json_body(request), exchange_of(request).wall))
