"""The handshake of /v1/realtime: the client is authenticated, and a channel connected, as for any request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, cast
from urllib.parse import quote

import aiohttp
import httpx
from django.http.response import HttpResponseBase

from portal.lib.json import Json, object_of, text_of
from relay.endpoints.realtime import client_secrets
from relay.errors import InvalidRequest, RelayError, UnsupportedEndpoint, UpstreamFailed, UpstreamTimeout
from relay.gateway.access.authentication import identify, presented_token
from relay.gateway.attempt import Attempt
from relay.gateway.background import BackgroundRequest
from relay.gateway.exchange.client import Client
from relay.gateway.exchange.exchange import AsgiScope, Exchange
from relay.gateway.exchange.interrupts import Interrupt
from relay.gateway.exchange.request import GatewayRequest
from relay.gateway.pipeline import serve
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot import hops
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.routes import Candidate
from relay.gateway.snapshot.views import ChannelView
from relay.protocols.naming.sessions import SessionIds
from relay.protocols.realtime import faults
from relay.protocols.realtime.conversation import LEAST_INPUT, LEAST_OUTPUT
from relay.protocols.realtime.events import is_preamble
from relay.protocols.usage import NO_USAGE
from relay.providers.classify import Failure, classify
from relay.providers.failures import FailureClass
from relay.providers.subject import REDIRECTS
from relay.providers.vendors import BUILT_IN
from relay.transport.resolver import NotPermitted
from relay.transport.transport import UpstreamTransport

logger: Final = logging.getLogger(__name__)
ENDPOINT: Final = "realtime"
_KEY_PROTOCOL: Final = "openai-insecure-api-key."
_NAMED_LATER: Final = (".openai.com", ".azure.com", ".microsoft.com")  # hosts that take no model for a transcription
_SILENCE: Final = 5.0  # seconds after which an upstream is taken for one that lets its client speak first
# Seconds, and messages, that are waited for at most after one that begins no session: an error may follow.
_MORE: Final = 0.3
_MOST_FIRST: Final = 8
_HANG_UP: Final = 1.0  # seconds


# -- the handshake ---------------------------------------------------------------------------------------------------


class Handshake(BackgroundRequest):
    """The request that opens a connection, as an exchange without a body."""

    __slots__ = ("call_id", "fixed", "named", "session", "transcribes")

    def __init__(self, scope: AsgiScope, ip: str) -> None:
        super().__init__(_NO_CALLER, b"")
        self.caller = None
        self.ip = ip
        headers = dict(scope["headers"])
        for protocol in scope.get("subprotocols") or ():
            if protocol.startswith(_KEY_PROTOCOL):
                headers[b"authorization"] = b"Bearer " + protocol[len(_KEY_PROTOCOL) :].encode()
        self.headers = headers
        self.client = Client(headers)
        if not self.client.ids.session:  # all that is said on a connection belongs together
            self.client.ids = SessionIds(self.request_id)
        self.session: Json = {}  # of a client secret
        self.named = False  # the address names the model
        self.transcribes = False  # it only writes down what is said
        self.fixed = False  # by a model that a client secret has fixed
        self.call_id = ""  # of the call that it is to join; empty: it opens a session


_NO_CALLER: Final = Caller("", 0, 0, False, frozenset(), False, False, 0.0, None, ())


class UpstreamConnection(HttpResponseBase):
    """An open connection to an upstream, and the attempt that opened it."""

    status_code = 200

    def __init__(
        self, socket: aiohttp.ClientWebSocketResponse, attempt: Attempt, first: Sequence[aiohttp.WSMessage] = ()
    ) -> None:
        """`first`: what it has said."""
        self.socket, self.attempt, self.first = socket, attempt, first


async def authenticate(exchange: Handshake, query: Mapping[str, Any]) -> str:
    """Authenticate the caller; returns the model of the session. Empty: its first event names what transcribes, or
    it joins a call.

    Raises RelayError.
    """
    presented = presented_token(exchange.headers)
    exchange.call_id = str(query.get("call_id") or "")[:200]
    if exchange.call_id:
        exchange.caller = await identify(exchange)
        return ""
    model = str(query.get("model") or query.get("deployment") or "")[:200]
    exchange.named, exchange.transcribes = bool(model), query.get("intent") == "transcription"
    if presented.startswith(client_secrets.PREFIX):
        exchange.caller, session = await client_secrets.caller_of_client_secret(presented, exchange.wall, exchange.ip)
        exchange.session = session
        exchange.transcribes = text_of(session, "type") == "transcription"
        own = client_secrets.transcriber_of(session) if exchange.transcribes else text_of(session, "model")
        exchange.fixed = exchange.transcribes and bool(own)
        model = own or model
    else:
        exchange.caller = await identify(exchange)
    if not model and not exchange.transcribes:
        raise InvalidRequest(
            "Name the model in the address: /v1/realtime?model=…", code="missing_required_parameter", param="model"
        )
    return model


def model_of_first(event: Json) -> str:
    """The model that the first event of a transcription session names. Raises InvalidRequest."""
    model = client_secrets.transcriber_of(object_of(event, "session"))
    if not model:
        raise InvalidRequest(
            "Configure the session first: send a “session.update” whose “session.audio.input.transcription.model” is a "
            "model from GET /v1/models.",
            code="missing_required_parameter",
            param="session.audio.input.transcription.model",
        )
    return model


async def connect_upstream(exchange: Handshake, run: Runtime, model: str) -> UpstreamConnection:
    """Connect the caller to an upstream, as for any request. Raises RelayError."""
    assert exchange.caller is not None  # noqa: S101  # `authenticate` has run
    found = await serve(exchange, exchange.caller, run, _gateway_request(run, model), partial(_try, exchange))
    return cast(UpstreamConnection, found)  # what the attempt returns


def check_realtime_channel(run: Runtime, channel: ChannelView) -> RelayError | None:
    if run.health.serves_api(channel, ENDPOINT) and channel.provider not in BUILT_IN:
        return None
    return UnsupportedEndpoint("The upstream of this model has no realtime API. Use another model.", param="model")


def _gateway_request(run: Runtime, model: str) -> GatewayRequest:
    """The gateway request of a connection: reserves for its first response."""
    return GatewayRequest(
        ENDPOINT,
        model,
        partial(check_realtime_channel, run),
        stream=True,
        prompt_tokens=LEAST_INPUT,
        output_limit=None,
        dearer_input=lambda: NO_USAGE,
        least_output=LEAST_OUTPUT,
    )


async def _try(exchange: Handshake, attempt: Attempt) -> HttpResponseBase:
    """Make one attempt. Raises Failure, Ended, CancelledError."""
    channel, candidate = attempt.channel, attempt.candidate
    url = _address(channel, candidate.route.upstream_name, exchange.transcribes)
    try:
        socket = await open_socket(exchange, attempt.run, candidate, url, attempt.record.model)
    except Failure as failure:
        if failure.status not in {404, 405, 426, 501, *REDIRECTS}:
            raise
        error = UnsupportedEndpoint("The upstream of this model has no realtime API. Use another model.", param="model")
        raise Failure(FailureClass.NO_API, error, failure.status, failure.detail, api=ENDPOINT) from None
    try:
        first = await first_events(exchange, attempt, socket)
    except BaseException:
        attempt.run.watchdog.spawn(hang_up(socket))
        raise
    attempt.answered()
    if exchange.named:
        exchange.session = exchange.session or _session_of_address(exchange, channel, attempt.record.model)
    return UpstreamConnection(socket, attempt, first)


async def open_socket(
    exchange: Handshake, run: Runtime, candidate: Candidate, url: str, model: str
) -> aiohttp.ClientWebSocketResponse:
    """Open a websocket to an upstream with one of its keys. Raises Failure, Ended, CancelledError.

    `model`: the public name.
    """
    began, channel = time.monotonic(), candidate.route.channel
    headers = {
        name: value
        for name, value in candidate.key.headers.items()
        if name.lower() not in {"content-type", "accept-encoding"}
    }
    beta = exchange.headers.get(b"openai-beta", b"").decode("latin-1")
    if beta:
        headers["openai-beta"] = beta[:100]
    if (via := exchange.headers.get(hops.HEADER.encode())) is not None and hops.HEADER in headers:
        headers[hops.HEADER] = hops.passed_on(via)
    if channel.overrides is not None and channel.overrides.change_headers:
        headers = channel.overrides.headers(headers, ENDPOINT, model, candidate.route.upstream_name)
    transport = run.transport(channel.provider, channel.proxy)
    assert isinstance(transport, UpstreamTransport)  # noqa: S101  # `check_realtime_channel` excludes the demo
    exchange.begin_wait(Interrupt.FIRST_BYTE, channel.timeouts.first_byte)
    try:
        return await transport.connect_socket(url, headers, channel.timeouts.connect)
    except asyncio.CancelledError as cancelled:
        raise exchange.explain(cancelled) from None
    except aiohttp.WSServerHandshakeError as refused:
        raise classify(
            refused.status,
            httpx.Headers(list((refused.headers or {}).items())),
            b"",
            channel.provider,
            snapshot_cache.snapshot.rules,
        ) from None
    except TimeoutError:
        raise Failure(
            FailureClass.TRANSIENT,
            UpstreamTimeout("The upstream could not be reached in time. Try again."),
            0,
            "no connection or no handshake in time",
        ) from None
    except (aiohttp.ClientError, OSError) as reason:
        refused_here = isinstance(getattr(reason, "os_error", None), NotPermitted)
        kind = FailureClass.CONFIG if refused_here else FailureClass.TRANSIENT
        raise Failure(
            kind,
            UpstreamFailed("The upstream could not be reached. Try again."),
            0,
            f"cannot connect: {reason}"[:300],
            # Later, the upstream has read the handshake, of which parts are the client's.
            unreachable=isinstance(reason, aiohttp.ClientConnectorError),
        ) from None
    finally:
        exchange.waiting = None
        exchange.upstream_seconds += time.monotonic() - began


async def first_events(
    exchange: Exchange, attempt: Attempt, socket: aiohttp.ClientWebSocketResponse, silence: float = _SILENCE
) -> list[aiohttp.WSMessage]:
    """What the upstream says first, up to the event that begins the session; nothing when it waits for the client.

    Raises Failure when it is an error, or closes the connection: OpenAI's server tells so that it does not accept a
    key, after the handshake. Raises Ended, CancelledError.
    """
    began = time.monotonic()
    found: list[aiohttp.WSMessage] = []
    exchange.begin_wait(Interrupt.FIRST_BYTE, attempt.channel.timeouts.first_byte)
    try:
        while len(found) < _MOST_FIRST:
            found.append(await socket.receive(timeout=min(silence, _MORE) if found else silence))
            if not _begins_nothing(attempt, found[-1]):
                break
    except TimeoutError:
        pass
    except asyncio.CancelledError as cancelled:
        raise exchange.explain(cancelled) from None
    finally:
        exchange.waiting = None
        exchange.upstream_seconds += time.monotonic() - began
    return found


def _begins_nothing(attempt: Attempt, message: aiohttp.WSMessage) -> bool:
    """Whether something else may come before the session. Raises Failure when there will be none."""
    if message.type is aiohttp.WSMsgType.TEXT:
        event = faults.read_event(message.data)
        if event is not None and (not event or faults.is_error(event)):
            raise attempt.error_in_body(faults.first_error(event))
        return is_preamble(message.data)
    if message.type is not aiohttp.WSMsgType.BINARY:
        raise attempt.error_in_body(faults.close_body(*closed_with(message)))
    return False


def closed_with(message: aiohttp.WSMessage) -> tuple[int, str]:
    """The code and the reason with which the upstream has closed; 1006 if its connection ended without them."""
    if message.type is not aiohttp.WSMsgType.CLOSE:  # aiohttp itself takes that for 1000
        return 1006, ""
    return int(message.data or 1000), str(message.extra or "")


async def hang_up(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Close a connection to an upstream, without waiting long for its answer."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
        await asyncio.wait_for(socket.close(), _HANG_UP)


def _address(channel: ChannelView, name: str, transcribes: bool) -> str:
    """The URL of a session. OpenAI's server takes no model for one that transcribes: an event names it."""
    address, model = channel.urls[ENDPOINT], f"model={quote(name, safe='')}"
    if not transcribes:
        return f"{address}?{model}"
    named = "" if _is_named_later(address.host) else f"&{model}"
    return f"{address}?intent=transcription{named}"


def _session_of_address(exchange: Handshake, channel: ChannelView, model: str) -> Json:
    """What a session is to be configured with, since the upstream's address does not say it as the client's does."""
    named_later = exchange.transcribes and _is_named_later(channel.urls[ENDPOINT].host)
    return client_secrets.transcription_by(model) if named_later else {}


def _is_named_later(host: str) -> bool:
    """Whether a server takes no model in the address of a session that transcribes."""
    return host.endswith(_NAMED_LATER)
