"""/v1/realtime: frames are relayed both ways; what is used is read from the upstream's events, recorded and paid for response by response.

A response's last event goes out when its record is on disk, as everywhere else. Money for the next response is held back before it is made;
when nothing is left, the connection ends with an error event.
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
from relay.protocols.realtime.events import RealtimeUsage, read_usage, realtime_error_event, session_update, transcription_model
from relay.protocols.usage import NO_USAGE, Usage
from relay.providers.classify import Failure, classify
from relay.providers.failures import FailureClass
from relay.providers.vendors import BUILT_IN
from relay.transport.resolver import NotPermitted
from relay.transport.transport import UpstreamTransport

logger: Final = logging.getLogger(__name__)
ENDPOINT: Final = "realtime"
_PROMPT: Final = 2000  # tokens of input for which money is held back before each response; what was said before counts again each time
_ANSWER: Final = 4096  # tokens of a response
_KEY_PROTOCOL: Final = "openai-insecure-api-key."
_CLOSED: Final = (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED)

SendFrame = Callable[[str | bytes], Awaitable[None]]


# -- the handshake ---------------------------------------------------------------------------------------------------


class Handshake(BackgroundRequest):
    """The request that asks for a connection, as an exchange without a body."""

    __slots__ = ("session",)

    def __init__(self, scope: AsgiScope, ip: str) -> None:
        super().__init__(_NOBODY, b"")
        self.caller = None
        self.ip = ip
        headers = dict(scope["headers"])
        for protocol in scope.get("subprotocols") or ():
            if protocol.startswith(_KEY_PROTOCOL):
                headers[b"authorization"] = b"Bearer " + protocol[len(_KEY_PROTOCOL) :].encode()
        self.headers = headers
        self.client_id = headers.get(b"x-client-request-id", b"")[:64].decode("ascii", "replace")
        self.session: Json = {}


_NOBODY: Final = Caller("", 0, 0, False, frozenset(), False, False, 0.0, None, ())


class Connected(HttpResponseBase):
    """An open connection to an upstream, and everything that belongs to it."""

    status_code = 200

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, attempt: Attempt) -> None:
        self.socket, self.attempt = socket, attempt


async def connect(exchange: Handshake, run: Runtime, model: str) -> Connected:
    """Who calls, may they, which upstream: as for any request. Raises RelayError."""
    presented = exchange.headers.get(b"authorization", b"").decode("latin-1").partition(" ")[2].strip()
    if presented.startswith(CLIENT_SECRET_PREFIX):
        exchange.caller, exchange.session = await caller_of_client_secret(presented, exchange.wall, exchange.ip)
        model = text_of(exchange.session, "model") or model
    else:
        exchange.caller = await identify(exchange)
    if not model:
        raise InvalidRequest("Name the model in the address: /v1/realtime?model=…", code="missing_required_parameter", param="model")
    found = await serve(exchange, exchange.caller, run, _wanted(run, model), partial(_try, exchange))
    return cast(Connected, found)  # what the attempt returns


def _check_channel(run: Runtime, channel: ChannelView) -> RelayError | None:
    if run.health.serves_api(channel, ENDPOINT) and channel.provider not in BUILT_IN:
        return None
    return UnsupportedEndpoint("The upstream of this model has no realtime API. Use another model.", param="model")


def _wanted(run: Runtime, model: str) -> GatewayRequest:
    """What is held back, and counted against the limits, for one response."""
    return GatewayRequest(ENDPOINT, model, partial(_check_channel, run), stream=True, prompt_tokens=_PROMPT, output_limit=_ANSWER)


async def _try(exchange: Exchange, attempt: Attempt) -> HttpResponseBase:
    """One try. Raises Failure, Ended, CancelledError."""
    channel, candidate = attempt.channel, attempt.candidate
    began = time.monotonic()
    url = f"{channel.urls[ENDPOINT]}?model={quote(candidate.route.upstream_name, safe='')}"
    headers = {name: value for name, value in candidate.key.headers.items() if name.lower() not in {"content-type", "accept-encoding"}}
    beta = exchange.headers.get(b"openai-beta", b"").decode("latin-1")
    if beta:
        headers["openai-beta"] = beta[:100]
    transport = attempt.run.transport(channel.provider, channel.proxy)
    assert isinstance(transport, UpstreamTransport)  # noqa: S101  # the demo does not fit
    exchange.begin_wait(Interrupt.FIRST_BYTE, channel.timeouts.first_byte)
    try:
        socket = await transport.connect_socket(url, headers, channel.timeouts.connect)
    except asyncio.CancelledError as cancelled:
        raise exchange.explain(cancelled) from None
    except aiohttp.WSServerHandshakeError as refused:
        failure = classify(refused.status, httpx.Headers(list((refused.headers or {}).items())), b"", channel.provider, snapshot_cache.snapshot.rules)
        if refused.status in {404, 405, 426, 501}:
            error = UnsupportedEndpoint("The upstream of this model has no realtime API. Use another model.", param="model")
            raise Failure(FailureClass.NO_API, error, refused.status, failure.detail, api=ENDPOINT) from None
        raise failure from None
    except TimeoutError:
        raise Failure(FailureClass.TRANSIENT, UpstreamTimeout("The upstream could not be reached in time. Try again."), 0, "connect timeout", unreachable=True) from None
    except (aiohttp.ClientError, OSError) as reason:
        refused_here = isinstance(getattr(reason, "os_error", None), NotPermitted)
        kind = FailureClass.CONFIG if refused_here else FailureClass.TRANSIENT
        raise Failure(kind, UpstreamFailed("The upstream could not be reached. Try again."), 0, f"cannot connect: {reason}"[:300], unreachable=True) from None
    finally:
        exchange.waiting = None
        exchange.upstream_seconds += time.monotonic() - began
    attempt.answered()
    return Connected(socket, attempt)


# -- while it is open ------------------------------------------------------------------------------------------------


class Session:
    """One connection: frames both ways, and the books of it."""

    def __init__(self, exchange: Handshake, run: Runtime, connected: Connected, send: SendFrame) -> None:
        self.exchange, self.run, self.socket, self.send = exchange, run, connected.socket, send
        self.attempt, self.candidate, self.record = connected.attempt, connected.attempt.candidate, connected.attempt.record
        self.model = self.record.model
        self.transcription = ""
        self.tokens = 0

    async def from_client(self, text: str | None, data: bytes | None) -> None:
        """Pass a frame on; returns when the upstream's buffer has room again."""
        try:
            if text is not None:
                await self.socket.send_str(text)
            elif data is not None:
                await self.socket.send_bytes(data)
        except (ConnectionError, aiohttp.ClientError):
            pass  # the other direction notices that it is closed, and says so

    async def run_out(self) -> tuple[int, str]:
        """Relay the upstream's frames until it ends. Returns the code and reason to close the client's connection with. Raises CancelledError when the client has left."""
        exchange = self.exchange
        exchange.task, exchange.streaming = asyncio.current_task(), True
        exchange.total_at = time.monotonic() + self.attempt.channel.timeouts.total
        error: RelayError | None = None
        code, reason = 1000, ""
        try:
            if exchange.session:
                await self.socket.send_str(session_update({"type": "realtime", **exchange.session}))
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
                    await self._account(used)
                await self.send(text)
                if used is not None and not used.transcription:
                    await self._go_on()
            elif message.type is aiohttp.WSMsgType.BINARY:
                await self.send(cast(bytes, message.data))
            elif message.type in _CLOSED:
                return _shown_code(socket.close_code), str(message.extra or "")[:120] if message.type is aiohttp.WSMsgType.CLOSE else ""
            elif message.type is aiohttp.WSMsgType.ERROR:
                raise UpstreamFailed("The connection to the upstream broke. Connect again.", code="upstream_truncated")

    # -- usage and money ---------------------------------------------------------------------------------------------------

    async def _account(self, used: RealtimeUsage) -> None:
        """Record what was used, and wait until that is on disk. Raises RelayUnavailable."""
        usage = used.usage
        self.tokens += usage.input + usage.output if usage is not None else 0
        if used.transcription:
            await self._account_transcription(usage)
            return
        self.record.sent = True
        await self.exchange.committed(self.record.submit(Outcome(COMPLETED, 200, usage)))

    async def _account_transcription(self, usage: Usage | None) -> None:
        """What was said was written down by a model of its own, which is priced by itself if it is known here, and as the session's otherwise."""
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
        charge = RequestCharge(self.run.reservations, caller, model, snapshot.terms(caller).multiplier, self.run.fallback_price, exchange.wall)
        wanted = GatewayRequest(ENDPOINT, model.name, partial(_check_channel, self.run), prompt_tokens=usage.input, output_limit=usage.output, units=usage)
        await charge.reserve(exchange, wanted)
        record = Record(exchange, self.run.reservations, replace(wanted, stream=True, units=NO_USAGE), self.transcription or model.name, charge)
        record.candidate, record.upstream_model, record.attempts = self.candidate, self.transcription, [*self.record.attempts]
        try:
            await self.exchange.committed(record.submit(Outcome(COMPLETED, 200, usage)))
        finally:
            for callback in exchange.at_end:
                callback()

    async def _go_on(self) -> None:
        """Make sure that the next response may be made and can be paid for. Raises RelayError."""
        exchange, run, snapshot = self.exchange, self.run, snapshot_cache.snapshot
        caller = _caller(exchange)
        exchange.renew()
        model = snapshot.models.get(self.model)
        if model is None or not caller.may_use(model, exchange.wall):
            raise InvalidRequest("This model is not available to your token any more.", code="model_not_allowed", param="model")
        terms = snapshot.terms(caller)
        checks = [check for check in (*terms.checks, *model.checks) if check.kind != "slots"]  # the connection itself holds its place until it ends
        if checks:
            await run.admission.admit(exchange, checks, _PROMPT)
        charge = RequestCharge(run.reservations, caller, model, terms.multiplier, run.fallback_price, exchange.wall)
        wanted = _wanted(run, self.model)
        await charge.reserve(exchange, wanted)
        before = self.record
        self.record = record = Record(exchange, run.reservations, wanted, self.model, charge)
        record.candidate, record.upstream_model, record.attempts = self.candidate, before.upstream_model, [*before.attempts]
        exchange.progress = record.progress

    def _end_record(self, reason: str, error: RelayError | None = None) -> None:
        """The connection is over: what was held back for a response that was not made is given back, and the record says how it ended."""
        self.exchange.tokens_used = self.tokens
        if not self.record.submitted:
            self.record.sent = False
            self.record.submit(Outcome(reason, 200, None, error), wait=False)


def _caller(exchange: Exchange) -> Caller:
    assert exchange.caller is not None  # noqa: S101  # `connect` has run
    return exchange.caller


def _shown_code(code: int | None) -> int:
    """Codes that a close frame may carry; 1006 and the like are no such."""
    return code if code is not None and (code in {1000, 1001, 1008, 1009, 1011, 1012, 1013} or 3000 <= code < 5000) else 1011


def model_of(query: Mapping[str, Any]) -> str:
    return str(query.get("model") or query.get("deployment") or "")[:200]
