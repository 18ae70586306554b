"""Calls (WebRTC) as upstreams have them: making one, joining it with a websocket, hanging it up.

Sound goes between client and upstream directly. What is made of it is told on a websocket that joins the call, the
sideband; without one, a call would cost what nobody counts, so that its client gets no answer before it is open.
Sources: OpenAI's reference of `realtime/calls` and its guide on server-side controls, November 2026. That a call can be
joined before its client has connected: Codex did so until May 2026, with some tries.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote

import aiohttp
import httpx

from portal import limits
from portal.lib.json import Json, encode
from relay.endpoints.realtime.connection import (
    ENDPOINT,
    Handshake,
    UpstreamConnection,
    first_events,
    hang_up,
    open_socket,
)
from relay.endpoints.realtime.models import SessionModels
from relay.errors import InvalidRequest, RelayError, UnsupportedEndpoint, UpstreamFailed
from relay.gateway.attempt import Attempt
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.routes import Candidate
from relay.gateway.snapshot.views import ChannelView
from relay.protocols.fields import BadRequest
from relay.protocols.framing.multipart import write_parts
from relay.providers.classify import Failure
from relay.providers.failures import FailureClass
from relay.providers.vendors import BUILT_IN
from relay.transport.body import post

logger: Final = logging.getLogger(__name__)
CALLS: Final = "realtime.calls"
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")
_JOIN_PAUSES: Final = (0.0, 0.2, 0.5, 1.0)  # seconds before the tries to join a new call
_SILENCE: Final = 0.3  # seconds after which a sideband is taken for one on which the upstream waits
_HANG_UP_PAUSES: Final = (0.0, 0.3, 1.0)
_HANG_UP_SECONDS: Final = 5.0  # for each try
_OVER: Final = frozenset((404, 410))


class CallConnection(UpstreamConnection):
    """A call at an upstream, its sideband, and the attempt that made it."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        attempt: Attempt,
        first: Sequence[aiohttp.WSMessage],
        upstream_id: str,
        answer: bytes = b"",
    ) -> None:
        """`answer`: the SDP answer for the client."""
        super().__init__(socket, attempt, first)
        self.upstream_id, self.answer = upstream_id, answer


def check_call_channel(run: Runtime, channel: ChannelView) -> RelayError | None:
    """Why a channel cannot serve calls, None: it can."""
    serves = run.health.serves_api
    if serves(channel, CALLS) and serves(channel, ENDPOINT) and channel.provider not in BUILT_IN:
        return None
    return UnsupportedEndpoint(
        "The upstream of this model takes no calls over WebRTC. Use the websocket /v1/realtime, or another model.",
        param="model",
    )


async def make_call(exchange: Handshake, offer: bytes, attempt: Attempt) -> CallConnection:
    """Make one attempt: make a call with the session of the exchange, and join it.

    Raises Failure, Ended, CancelledError, InvalidRequest. A call that cannot be joined is hung up.
    """
    caller, candidate = exchange.caller, attempt.candidate
    assert caller is not None  # noqa: S101  # it has been identified
    session = sent_session(exchange, SessionModels(caller, attempt.record.model, candidate))
    if not exchange.transcribes:
        session["model"] = candidate.route.upstream_name
    parts = (("sdp", "application/sdp", offer), ("session", "application/json", encode(session)))
    upstream = await attempt.open(CALLS, *write_parts(parts))
    try:
        answer = await upstream.read_all(limits.SDP_BYTES)
    finally:
        upstream.close()
    upstream_id = upstream.header("location").partition("?")[0].rstrip("/").rpartition("/")[2]
    if _ID.fullmatch(upstream_id) is None or not answer.lstrip().startswith(b"v="):
        raise attempt.unreadable_answer(answer, "the answer to a call, with its id in the header Location")
    try:
        socket, first = await _join(exchange, attempt, upstream_id)
    except BaseException:
        attempt.run.watchdog.spawn(_hang_up_quietly(attempt, upstream_id))
        raise
    exchange.asked = False  # from here on, it ends as a session does
    attempt.answered()
    return CallConnection(socket, attempt, first, upstream_id, answer)


def sent_session(exchange: Handshake, models: SessionModels) -> Json:
    """The session of a call as its upstream gets it, but for its model. Raises InvalidRequest."""
    session: Json = {"type": "realtime", **models.opening(exchange.session, exchange.transcribes)}
    session.pop("model", None)
    try:
        models.translate({"session": session})
    except BadRequest as bad:  # of a client secret: what its token may do has changed
        raise InvalidRequest(bad.message, code=bad.code, param=bad.param) from None
    return session


async def _join(
    exchange: Handshake, attempt: Attempt, upstream_id: str
) -> tuple[aiohttp.ClientWebSocketResponse, list[aiohttp.WSMessage]]:
    """Join a call that has just been made. Raises Failure, Ended, CancelledError."""
    for number, pause in enumerate(_JOIN_PAUSES, 1):
        await asyncio.sleep(pause)
        try:
            return await join_call(exchange, attempt.run, attempt, upstream_id)
        except Failure as failure:
            if number == len(_JOIN_PAUSES):
                detail = f"a call was made that cannot be joined, so that nobody would count it: {failure.detail}"
                error = UpstreamFailed("The upstream took the call, but cannot serve it. Try again.")
                raise Failure(FailureClass.TRANSIENT, error, failure.status, detail[:300]) from None
    raise AssertionError("unreachable")


async def join_call(
    exchange: Handshake, run: Runtime, attempt: Attempt, upstream_id: str
) -> tuple[aiohttp.ClientWebSocketResponse, list[aiohttp.WSMessage]]:
    """Open a sideband of a call; returns it with what the upstream says first.

    Raises Failure, Ended, CancelledError.
    """
    url = sideband_url(attempt.channel, upstream_id)
    socket = await open_socket(exchange, run, attempt.candidate, url, attempt.record.model)
    try:
        return socket, await first_events(exchange, attempt, socket, _SILENCE)
    except BaseException:
        run.watchdog.spawn(hang_up(socket))
        raise


def sideband_url(channel: ChannelView, upstream_id: str) -> str:
    return f"{channel.urls[ENDPOINT]}?call_id={quote(upstream_id, safe='')}"


async def hang_up_call(run: Runtime, candidate: Candidate, upstream_id: str, model: str) -> bool:
    """Hang up a call; returns whether it is over. `model`: the public name."""
    channel = candidate.route.channel
    base = channel.urls.get(CALLS) or httpx.URL(f"{channel.urls[ENDPOINT]}/calls")
    url = httpx.URL(f"{base}/{quote(upstream_id, safe='')}/hangup")
    headers: Mapping[str, str] = candidate.key.headers
    if channel.overrides is not None and channel.overrides.change_headers:
        headers = channel.overrides.headers(headers, CALLS, model, candidate.route.upstream_name)
    said = ""
    for pause in _HANG_UP_PAUSES:
        await asyncio.sleep(pause)
        try:
            async with asyncio.timeout(_HANG_UP_SECONDS):
                request = post(url, headers, b"", channel.timeouts.connect)
                response = await run.transport(channel.provider, channel.proxy).handle_async_request(request)
                status = response.status_code
                await response.aclose()
        except (TimeoutError, httpx.TransportError, OSError) as reason:
            said = str(reason) or type(reason).__name__
            continue
        if 200 <= status < 300 or status in _OVER:
            return True
        said = f"HTTP {status}"
    logger.warning("a realtime call on the channel “%s” could not be hung up: %s", channel.name, said[:200])
    return False


async def _hang_up_quietly(attempt: Attempt, upstream_id: str) -> None:
    await hang_up_call(attempt.run, attempt.candidate, upstream_id, attempt.record.model)
