"""The secrets by which browsers open sessions of /v1/realtime, and calls. The websocket is `relay.api.consumers`."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Router

from relay.api.auth import counted_auth, secret_auth, token_auth
from relay.api.request import caller_of, exchange_of, json_body, query_of
from relay.api.respond import json_response
from relay.endpoints.realtime import calls, client_secrets, running_calls
from relay.gateway.runtime import runtime

router = Router(auth=counted_auth)


@router.post("/realtime/client_secrets", url_name="realtime-client-secrets")
async def create_client_secret(request: HttpRequest) -> HttpResponse:
    """A secret by which a browser may open a realtime connection for a while, in this token's name."""
    body = await json_body(request)
    return json_response(await client_secrets.make_client_secret(exchange_of(request), caller_of(request), body))


@router.post("/realtime/sessions", url_name="realtime-sessions")
async def create_session(request: HttpRequest) -> HttpResponse:
    """The same in the older form: the session with its secret in it."""
    body = await json_body(request)
    return json_response(await client_secrets.make_session(exchange_of(request), caller_of(request), body))


@router.post("/realtime/transcription_sessions", url_name="realtime-transcription-sessions")
async def create_transcription_session(request: HttpRequest) -> HttpResponse:
    """The same for a session that only writes down what is said."""
    body = await json_body(request)
    return json_response(
        await client_secrets.make_transcription_session(exchange_of(request), caller_of(request), body)
    )


@router.post("/realtime/calls", url_name="realtime-calls", auth=secret_auth)
async def create_call(request: HttpRequest) -> HttpResponse:
    """Make a call over WebRTC: the SDP answer to an offer, and the call's address in the header `Location`."""
    caller, session = request.auth  # type: ignore[attr-defined]  # what `secret_auth` returns
    return await calls.create_call(exchange_of(request), caller, await runtime(), session, query_of(request))


@router.post("/realtime/calls/{call_id}/hangup", url_name="realtime-hangup", auth=token_auth)
async def hang_up_call(request: HttpRequest, call_id: str) -> HttpResponse:
    """End a call."""
    await running_calls.hang_up_own_call(caller_of(request), await runtime(), call_id)
    return HttpResponse(status=200)
