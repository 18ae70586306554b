"""POST /v1/realtime/calls: a call over WebRTC is made for a client, metered here, and can be hung up by its owner."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Final, cast

from django.http import HttpResponse
from django.http.response import HttpResponseBase

from portal import limits
from portal.lib.ids import time_ordered_hex
from portal.lib.json import Json, encode, text_of
from relay.endpoints.errors import invalid
from relay.endpoints.realtime import client_secrets, running_calls
from relay.endpoints.realtime.call_session import CallSession
from relay.endpoints.realtime.call_upstream import CallConnection, check_call_channel, hang_up_call, make_call
from relay.endpoints.realtime.connection import ENDPOINT, Handshake, hang_up
from relay.errors import InvalidRequest, RateLimited, RequestTooLarge
from relay.gateway.access.authorization import check_purpose
from relay.gateway.attempt import Attempt
from relay.gateway.exchange.exchange import Exchange
from relay.gateway.exchange.interrupts import Interrupt
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.outcome import CLIENT_GONE, Outcome
from relay.gateway.pipeline import serve
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.models import RealtimeCall
from relay.protocols.fields import BadRequest, check_inner_names, read_object
from relay.protocols.framing.multipart import parse_form
from relay.protocols.realtime.conversation import LEAST_INPUT
from relay.storage.realtime import calls as stored_calls

_SDP: Final = "application/sdp"
_FIELDS: Final = frozenset(("sdp", "session"))


async def create_call(
    exchange: Exchange, caller: Caller, run: Runtime, secret: Json | None, query: Mapping[str, str]
) -> HttpResponse:
    """Make a call; returns the SDP answer once the call is being metered. `secret`: the session of a client secret.

    Raises RelayError.
    """
    check_purpose(caller, ENDPOINT)
    offer, session = await _read(exchange, secret)
    if text_of(session, "type") not in {"", *client_secrets.TYPES}:
        raise InvalidRequest("The field “session.type” must be “realtime” or “transcription”.", param="session.type")
    client_secrets.check_session(caller, session, exchange.wall)
    if await snapshot_cache.in_thread(stored_calls.count, caller.user_id) >= limits.REALTIME_CALLS:
        raise RateLimited(f"You have {limits.REALTIME_CALLS} running calls. Hang one up.", retry_after=5)
    own = Handshake({"headers": list(exchange.headers.items())}, exchange.ip)
    own.caller, own.pinned, own.session = caller, exchange.pinned, session
    own.request_id = exchange.request_id
    own.transcribes = text_of(session, "type") == "transcription"
    own.fixed = own.transcribes and bool(client_secrets.transcriber_of(secret or {}))
    model = client_secrets.transcriber_of(session) if own.transcribes else text_of(session, "model")
    model = model or query.get("model", "")[:200]
    if not model:
        raise InvalidRequest(
            "Name the model in “session.model”, such as one from GET /v1/models.",
            code="missing_required_parameter",
            param="session.model",
        )
    connection, call_id = await _connect(exchange, own, run, model, offer)
    running_calls.begin(run, CallSession(own, run, connection, call_id))
    return HttpResponse(
        connection.answer, status=201, content_type=_SDP, headers={"Location": f"/v1/realtime/calls/{call_id}"}
    )


async def _read(exchange: Exchange, secret: Json | None) -> tuple[bytes, Json]:
    """The SDP offer and the session of a request. Raises InvalidRequest, RequestTooLarge."""
    kind = exchange.headers.get(b"content-type", b"").decode("latin-1")
    body = await exchange.read_body(limits.SDP_BYTES + limits.CLIENT_SECRET_BYTES)
    session: Json = {}
    try:
        if kind.lower().startswith("multipart/"):
            fields = parse_form(body, kind).parameters(_FIELDS)
            offer = fields.get("sdp", "").encode()
            if "session" in fields:
                session = read_object(fields["session"].encode(), where="session")
        elif kind.lower().startswith(_SDP):
            offer = body
        else:
            message = "Send the offer as application/sdp, or as a form with the fields “sdp” and “session”."
            raise BadRequest(message, None, "invalid_multipart")
        check_inner_names({"session": session})
    except BadRequest as bad:
        raise invalid(bad) from None
    if len(offer) > limits.SDP_BYTES or len(encode(session)) > limits.CLIENT_SECRET_BYTES:
        raise RequestTooLarge(f"An offer may have {limits.SDP_BYTES // limits.KIB} KiB.", param="sdp")
    if not offer.lstrip().startswith(b"v="):
        raise InvalidRequest(
            "The field “sdp” must be a WebRTC offer: RTCPeerConnection.createOffer() makes one.", param="sdp"
        )
    if secret is not None:
        session = client_secrets.completed(secret, session)
    return offer, session


async def _connect(
    exchange: Exchange, own: Handshake, run: Runtime, model: str, offer: bytes
) -> tuple[CallConnection, str]:
    """Make the call in an exchange of its own, which goes on when that of the request has ended. Raises RelayError."""
    assert own.caller is not None  # noqa: S101  # `create_call` has set it
    call_id = f"rtc_{time_ordered_hex()}"
    check = partial(check_call_channel, run)
    request = GatewayRequest(ENDPOINT, model, check, stream=True, prompt_tokens=LEAST_INPUT, output_limit=None)
    run.watchdog.add(own)
    work = serve(own, own.caller, run, request, partial(_try, own, offer, call_id))
    own.task = task = asyncio.ensure_future(work)
    begun = False
    try:
        try:
            connection = cast(CallConnection, await asyncio.shield(task))
        except asyncio.CancelledError:
            if not task.done():  # the client has left
                own.interrupt(exchange.interrupted or Interrupt.CLIENT_GONE)
                await asyncio.wait([task])
            if not task.cancelled() and task.exception() is None:
                made = cast(CallConnection, task.result())
                made.attempt.record.submit(Outcome(CLIENT_GONE, 499), wait=False)
                run.watchdog.spawn(_drop(run, made, call_id))
            raise
        begun = True
        return connection, call_id
    finally:
        exchange.recorded, exchange.model_asked = own.recorded, own.model_asked
        exchange.reply_headers += own.reply_headers
        if not begun:
            run.watchdog.remove(own)


async def _try(own: Handshake, offer: bytes, call_id: str, attempt: Attempt) -> HttpResponseBase:
    """Make the call by one channel, and store where it is. Raises Failure, Ended, RelayError, CancelledError."""
    connection = await make_call(own, offer, attempt)
    caller = attempt.exchange.caller
    assert caller is not None  # noqa: S101  # `create_call` has set it
    channel, key = attempt.candidate.pair
    call = RealtimeCall(
        call_id=call_id,
        upstream_id=connection.upstream_id,
        user_id=caller.user_id,
        token_id=caller.token_id,
        token_digest=caller.digest,
        model=attempt.record.model,
        channel_id=channel,
        key_id=key,
        owner=running_calls.owner(),
    )
    try:
        await snapshot_cache.in_thread(stored_calls.store, call, attempt.channel.timeouts.total)
    except BaseException:
        attempt.run.watchdog.spawn(_drop(attempt.run, connection, call_id))
        raise
    attempt.add_headers()
    return connection


async def _drop(run: Runtime, connection: CallConnection, call_id: str) -> None:
    """Hang up a call that nobody will use."""
    await hang_up(connection.socket)
    attempt = connection.attempt
    over = await hang_up_call(run, attempt.candidate, connection.upstream_id, attempt.record.model)
    await running_calls.forget(call_id, over)
