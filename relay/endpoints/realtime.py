"""/v1/realtime: relays frames both ways, and records and charges each response by the usage in the upstream's events.

The last event of a response is sent once its record is on disk, as for other endpoints. The cost of the next response
is reserved beforehand; when nothing is left, the connection ends with an error event.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, cast
from urllib.parse import quote

import aiohttp
import httpx
from django.http.response import HttpResponseBase

from portal.lib.json import Json, text_of
from relay.errors import InvalidRequest, RelayError, UnsupportedEndpoint, UpstreamFailed, UpstreamTimeout
from relay.gateway.access.authentication import identify
from relay.gateway.access.short_lived_keys import CLIENT_SECRET_PREFIX, caller_of_client_secret
from relay.gateway.attempt import Attempt, interrupt_error
from relay.gateway.background import BackgroundRequest
from relay.gateway.charging.charge import RequestCharge
from relay.gateway.exchange import AsgiScope, Ended, Exchange, GatewayRequest, Interrupt
from relay.gateway.pipeline import serve
from relay.gateway.record import CLIENT_GONE, COMPLETED, Outcome, Record, end_reason
from relay.gateway.runtime import Runtime
from relay.gateway.snapshot.cache import snapshot_cache
from relay.gateway.snapshot.callers import Caller
from relay.gateway.snapshot.views import ChannelView
from relay.protocols.fields import BadRequest
from relay.protocols.realtime.events import (
    RealtimeUsage,
    client_event,
    read_usage,
    realtime_error_event,
    session_update,
    transcription_model,
)
from relay.protocols.usage import NO_USAGE, Usage
from relay.providers.classify import Failure, classify
from relay.providers.failures import FailureClass
from relay.providers.subject import REDIRECTS
from relay.providers.vendors import BUILT_IN
from relay.transport.resolver import NotPermitted
from relay.transport.transport import UpstreamTransport

logger: Final = logging.getLogger(__name__)
_ENDPOINT: Final = "realtime"
_PROMPT_TOKENS: Final = 2000  # input that is reserved for each response; the conversation so far counts each time
_ANSWER_TOKENS: Final = 4096  # output that is reserved for each response
_KEY_PROTOCOL: Final = "openai-insecure-api-key."
_CLOSED: Final = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED)

SendFrame = Callable[[str | bytes], Awaitable[None]]


# -- the handshake ---------------------------------------------------------------------------------------------------


class Handshake(BackgroundRequest):
    """The request that opens a connection, as an exchange without a body."""

    __slots__ = ("session",)

    def __init__(self, scope: AsgiScope, ip: str) -> None:
        super().__init__(_NO_CALLER, b"")
        self.caller = None
        self.ip = ip
        headers = dict(scope["headers"])
        for protocol in scope.get("subprotocols") or ():
            if protocol.startswith(_KEY_PROTOCOL):
                headers[b"authorization"] = b"Bearer " + protocol[len(_KEY_PROTOCOL) :].encode()
        self.headers = headers
        self.client_id = headers.get(b"x-client-request-id", b"")[:64].decode("ascii", "replace")
        self.session: Json = {}


_NO_CALLER: Final = Caller("", 0, 0, False, frozenset(), False, False, 0.0, None, ())


class UpstreamConnection(HttpResponseBase):
    """An open connection to an upstream, and the attempt that opened it."""

    status_code = 200

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, attempt: Attempt) -> None:
        self.socket, self.attempt = socket, attempt


async def connect_upstream(exchange: Handshake, run: Runtime, model: str) -> UpstreamConnection:
    """Authenticate the caller and connect to an upstream, as for any request. Raises RelayError."""
    presented = exchange.headers.get(b"authorization", b"").decode("latin-1").partition(" ")[2].strip()
    if presented.startswith(CLIENT_SECRET_PREFIX):
        exchange.caller, exchange.session = await caller_of_client_secret(presented, exchange.wall, exchange.ip)
        model = text_of(exchange.session, "model") or model
    else:
        exchange.caller = await identify(exchange)
    if not model:
        raise InvalidRequest(
            "Name the model in the address: /v1/realtime?model=…", code="missing_required_parameter", param="model"
        )
    found = await serve(exchange, exchange.caller, run, _gateway_request(run, model), partial(_try, exchange))
    return cast(UpstreamConnection, found)  # what the attempt returns


def _check_channel(run: Runtime, channel: ChannelView) -> RelayError | None:
    if run.health.serves_api(channel, _ENDPOINT) and channel.provider not in BUILT_IN:
        return None
    return UnsupportedEndpoint("The upstream of this model has no realtime API. Use another model.", param="model")


def _gateway_request(run: Runtime, model: str) -> GatewayRequest:
    """The gateway request for one response: decides what is reserved and counted against limits."""
    return GatewayRequest(
        _ENDPOINT,
        model,
        partial(_check_channel, run),
        stream=True,
        prompt_tokens=_PROMPT_TOKENS,
        output_limit=_ANSWER_TOKENS,
    )


async def _try(exchange: Exchange, attempt: Attempt) -> HttpResponseBase:
    """Make one attempt. Raises Failure, Ended, CancelledError."""
    channel, candidate = attempt.channel, attempt.candidate
    began = time.monotonic()
    url = f"{channel.urls[_ENDPOINT]}?model={quote(candidate.route.upstream_name, safe='')}"
    headers = {
        name: value
        for name, value in candidate.key.headers.items()
        if name.lower() not in {"content-type", "accept-encoding"}
    }
    beta = exchange.headers.get(b"openai-beta", b"").decode("latin-1")
    if beta:
        headers["openai-beta"] = beta[:100]
    transport = attempt.run.transport(channel.provider, channel.proxy)
    assert isinstance(transport, UpstreamTransport)  # noqa: S101  # `_check_channel` excludes the demo
    exchange.begin_wait(Interrupt.FIRST_BYTE, channel.timeouts.first_byte)
    try:
        socket = await transport.connect_socket(url, headers, channel.timeouts.connect)
    except asyncio.CancelledError as cancelled:
        raise exchange.explain(cancelled) from None
    except aiohttp.WSServerHandshakeError as refused:
        failure = classify(
            refused.status,
            httpx.Headers(list((refused.headers or {}).items())),
            b"",
            channel.provider,
            snapshot_cache.snapshot.rules,
        )
        if refused.status in {404, 405, 426, 501, *REDIRECTS}:
            error = UnsupportedEndpoint(
                "The upstream of this model has no realtime API. Use another model.", param="model"
            )
            raise Failure(FailureClass.NO_API, error, refused.status, failure.detail, api=_ENDPOINT) from None
        raise failure from None
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
    attempt.answered()
    return UpstreamConnection(socket, attempt)


# -- the open connection ---------------------------------------------------------------------------------------------


class RealtimeSession:
    """One open connection: relays frames both ways, and records usage."""

    def __init__(self, exchange: Handshake, run: Runtime, connection: UpstreamConnection, send: SendFrame) -> None:
        self.exchange, self.run, self.socket, self.send = exchange, run, connection.socket, send
        self.attempt, self.candidate, self.record = (
            connection.attempt,
            connection.attempt.candidate,
            connection.attempt.record,
        )
        self.model = self.record.model
        self.transcription = ""  # the model that transcribes the user's speech
        self.tokens = 0  # used so far

    async def from_client(self, text: str | None, data: bytes | None) -> None:
        """Send a frame to the upstream; returns when its buffer has room again."""
        try:
            if text is not None:
                await self.socket.send_str(client_event(text, self.model, self.candidate.route.upstream_name))
            elif data is not None:
                await self.socket.send_bytes(data)
        except BadRequest as bad:
            await self.send(realtime_error_event(bad.message, InvalidRequest.type, bad.code, bad.param))
        except (ConnectionError, aiohttp.ClientError):
            pass  # the other direction detects that the connection is closed, and reports it

    async def relay_to_client(self) -> tuple[int, str]:
        """Relay the upstream's frames until it closes; returns the code and reason to close the client's connection
        with.

        Raises CancelledError when the client has disconnected.
        """
        exchange = self.exchange
        exchange.task, exchange.streaming = asyncio.current_task(), True
        exchange.total_at = time.monotonic() + self.attempt.channel.timeouts.total
        error: RelayError | None = None
        code, reason = 1000, ""
        try:
            if exchange.session:
                session: Json = {"type": "realtime", **exchange.session}
                session.pop("model", None)  # in the address, by the upstream's name
                await self.socket.send_str(session_update(session))
            code, reason = await self._relay()
            if code not in {1000, 1001}:
                self.attempt.broke_off(f"the upstream closed the connection with {code} {reason}"[:200])
        except RelayError as ended:
            error = ended
        except asyncio.CancelledError as cancelled:
            why = exchange.explain(cancelled)
            if not isinstance(why, Ended):
                self._end_record(CLIENT_GONE)
                raise
            error = interrupt_error(why.reason)
        finally:
            exchange.streaming = False
            await self.socket.close()
        if error is not None:
            await self.send(realtime_error_event(error.message, error.public_type, error.public_code, error.param))
            code, reason = 4000 + error.http_status if error.http_status < 1000 else 1011, error.public_code or ""
        self._end_record(COMPLETED if error is None else end_reason(error), error)
        return code, reason

    async def _relay(self) -> tuple[int, str]:
        exchange, socket = self.exchange, self.socket
        while True:
            if exchange.must_end is not None:
                raise interrupt_error(exchange.must_end)
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                text: str = message.data
                model = transcription_model(text)
                if model is not None:
                    self.transcription = model
                used = read_usage(text)
                if used is not None:
                    await self._record_usage(used)
                await self.send(text)
                if used is not None and not used.transcription:
                    await self._prepare_next_response()
            elif message.type is aiohttp.WSMsgType.BINARY:
                await self.send(cast(bytes, message.data))
            elif message.type in _CLOSED:
                return _close_code(socket.close_code), str(message.extra or "")[
                    :120
                ] if message.type is aiohttp.WSMsgType.CLOSE else ""
            elif message.type is aiohttp.WSMsgType.ERROR:
                raise UpstreamFailed("The connection to the upstream broke. Connect again.", code="upstream_truncated")

    # -- usage and money
    # ---------------------------------------------------------------------------------------------------

    async def _record_usage(self, used: RealtimeUsage) -> None:
        """Record usage, and wait until it is on disk. Raises RelayUnavailable."""
        usage = used.usage
        self.tokens += usage.input + usage.output if usage is not None else 0
        if used.transcription:
            await self._record_transcription(usage)
            return
        self.record.sent = True
        await self.exchange.committed(self.record.submit(Outcome(COMPLETED, 200, usage)))

    async def _record_transcription(self, usage: Usage | None) -> None:
        """Record a transcription of the user's speech, at the price of its own model if the portal has one.

        Otherwise at the price of the session's model. Raises RelayUnavailable.
        """
        if usage is None:
            return
        snapshot, caller = snapshot_cache.snapshot, _caller(self.exchange)
        model = snapshot.models.get(self.transcription) or snapshot.models.get(self.model)
        if model is None or (not model.priced and self.run.fallback_price is None):
            logger.warning("the transcription of a realtime session has no price: %s", self.transcription)
            model = snapshot.models.get(self.model)
            if model is None:
                return
        exchange = BackgroundRequest(caller, b"")
        exchange.ip, exchange.client_id = self.exchange.ip, self.exchange.client_id
        charge = RequestCharge(
            self.run.reservations,
            caller,
            model,
            snapshot.terms(caller).multiplier,
            self.run.fallback_price,
            exchange.wall,
        )
        request = GatewayRequest(
            _ENDPOINT,
            model.name,
            partial(_check_channel, self.run),
            prompt_tokens=usage.input,
            output_limit=usage.output,
            units=usage,
        )
        await charge.reserve(exchange, request)
        record = Record(
            exchange,
            self.run.reservations,
            replace(request, stream=True, units=NO_USAGE),
            self.transcription or model.name,
            charge,
        )
        record.candidate, record.upstream_model, record.attempts = (
            self.candidate,
            self.transcription,
            [*self.record.attempts],
        )
        try:
            await self.exchange.committed(record.submit(Outcome(COMPLETED, 200, usage)))
        finally:
            for callback in exchange.at_end:
                callback()

    async def _prepare_next_response(self) -> None:
        """Check that the next response is permitted, and reserve its cost. Raises RelayError."""
        exchange, run, snapshot = self.exchange, self.run, snapshot_cache.snapshot
        caller = _caller(exchange)
        exchange.renew()
        model = snapshot.models.get(self.model)
        if model is None or not caller.may_use(model, exchange.wall):
            raise InvalidRequest(
                "This model is not available to your token any more.", code="model_not_allowed", param="model"
            )
        terms = snapshot.terms(caller)
        # The connection keeps its slot.
        checks = [check for check in (*terms.checks, *model.checks) if check.kind != "slots"]
        if checks:
            await run.admission.admit(exchange, checks, _PROMPT_TOKENS)
        charge = RequestCharge(run.reservations, caller, model, terms.multiplier, run.fallback_price, exchange.wall)
        request = _gateway_request(run, self.model)
        await charge.reserve(exchange, request)
        before = self.record
        self.record = record = Record(exchange, run.reservations, request, self.model, charge)
        record.candidate, record.upstream_model, record.attempts = (
            self.candidate,
            before.upstream_model,
            [*before.attempts],
        )
        exchange.progress = record.progress

    def _end_record(self, reason: str, error: RelayError | None = None) -> None:
        """Submit the last record when the connection has ended; releases the reservation of a response that was not
        made.
        """
        self.exchange.tokens_used = self.tokens
        if not self.record.submitted:
            self.record.sent = False
            self.record.submit(Outcome(reason, 200, None, error), wait=False)


def _caller(exchange: Exchange) -> Caller:
    assert exchange.caller is not None  # noqa: S101  # `connect` has run
    return exchange.caller


def _close_code(code: int | None) -> int:
    """A code for the client's close frame: the upstream's, or 1011 where a frame may not contain it (1006, for
    example).
    """
    return (
        code
        if code is not None and (code in {1000, 1001, 1008, 1009, 1011, 1012, 1013} or 3000 <= code < 5000)
        else 1011
    )


def model_from_query(query: Mapping[str, Any]) -> str:
    """The model that the URL of a connection names, empty when it names none."""
    return str(query.get("model") or query.get("deployment") or "")[:200]
