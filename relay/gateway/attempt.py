"""One try at one channel: the request to the upstream, its answer's head, its failure in words."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from typing import Final, Protocol

import httpx

from relay.errors import RelayError, RequestEnded, Stopping, UnsupportedEndpoint, UpstreamFailed, UpstreamTimeout
from relay.gateway.charging.charge import spent
from relay.gateway.exchange import Ended, Exchange, Interrupt, timeout_error
from relay.gateway.routing.selection import Candidate
from relay.providers.classify import Failure, classify
from relay.providers.failures import FailureClass, Rule
from relay.transport.body import Pieces, UpstreamResponse, post
from relay.transport.resolver import ConnectRefused

_ERROR_LIMIT: Final = 64 * 1024  # bytes of an error answer that are looked at
_ANSWER_LIMIT: Final = 256 * 1024 * 1024
_UNREACHABLE: Final = "The upstream could not be reached. Try again; if it keeps failing, try another model."
_BROKEN: Final = "The connection to the upstream broke. Try again."
GARBAGE: Final = "The upstream's answer made no sense. Try again; if it keeps happening, try another model."


# A 404 that does not speak of a model means that the upstream does not have this API, which says nothing about its others.
_NO_SUCH_PATH: Final = frozenset((404, 405, 501))
_MAY_MEAN_PATH: Final = frozenset((FailureClass.CLIENT, FailureClass.CONFIG, FailureClass.KEY_FORBIDDEN_MODEL, FailureClass.TRANSIENT))
_MODEL: Final = re.compile(rb"model|deployment|response_id|resp_", re.I)


class BodyStream(Protocol):
    """What a transport's answer must offer beside httpx's interface."""

    async def read(self) -> bytes: ...
    def at_end(self) -> bool: ...
    def close(self) -> None: ...


class Upstream:
    """An answer whose status is 200 and whose body is being read. `close` always."""

    __slots__ = ("_exchange", "_idle", "_stream", "content_type", "encoded")

    def __init__(self, exchange: Exchange, response: httpx.Response, stream: BodyStream, idle: float) -> None:
        self._exchange, self._stream, self._idle = exchange, stream, idle
        if isinstance(response, UpstreamResponse):
            self.content_type, self.encoded = response.content_type, response.encoded
        else:
            self.content_type, self.encoded = response.headers.get("content-type", ""), False

    async def read(self) -> bytes:
        """The next piece of the body, empty at its end. Raises Failure, Ended or CancelledError."""
        exchange = self._exchange
        if exchange.must_end is not None:
            raise Ended(exchange.must_end)
        exchange.wait_since = began = time.monotonic()
        exchange.wait_limit, exchange.waiting = self._idle, Interrupt.IDLE
        try:
            return await self._stream.read()
        except asyncio.CancelledError as cancelled:
            raise exchange.explain(cancelled) from None
        except httpx.TransportError as error:
            raise Failure(FailureClass.UNANSWERED, UpstreamFailed(_BROKEN), 0, f"connection broke: {error or type(error).__name__}"[:300]) from None
        finally:
            exchange.waiting = None
            exchange.upstream_seconds += time.monotonic() - began

    async def read_all(self, limit: int = _ANSWER_LIMIT) -> bytes:
        """The rest of the body. Raises as `read` does, and Failure when it is larger than any sane answer."""
        first = await self.read()
        pieces, size = [first], len(first)
        while pieces[-1]:
            pieces.append(await self.read())
            size += len(pieces[-1])
            if size > limit:
                raise Failure(FailureClass.TRANSIENT, UpstreamFailed(GARBAGE), 0, f"answer larger than {limit} bytes")
        return b"".join(pieces) if len(pieces) > 2 else first

    def at_end(self) -> bool:
        return self._stream.at_end()

    def close(self) -> None:
        self._stream.close()


async def open_upstream(
    exchange: Exchange, transport: httpx.AsyncBaseTransport, candidate: Candidate, body: bytes | Pieces, rules: Sequence[Rule], api: str, content_type: str = ""
) -> Upstream:
    """Send the request to one of the channel's APIs and wait for the answer's head. `content_type`: of the body, when it is no JSON.

    Raises Failure for anything but a 200, Ended, CancelledError.
    """
    exchange.check_end()
    channel = candidate.route.channel
    headers = candidate.key.headers
    if content_type:
        headers = {**headers, "content-type": content_type}
    request = post(channel.urls[api], headers, body, channel.timeouts.connect)
    began = time.monotonic()
    exchange.begin_wait(Interrupt.FIRST_BYTE, channel.timeouts.first_byte)
    try:
        response = await transport.handle_async_request(request)
    except asyncio.CancelledError as cancelled:
        raise exchange.explain(cancelled) from None
    except ConnectRefused:
        error = UpstreamFailed("The upstream's address is not permitted on this portal. Tell the portal's administrator.")
        raise Failure(FailureClass.CONFIG, error, 0, "the host name stands for an address that channels may not use") from None
    except httpx.ConnectTimeout:
        error_: RelayError = UpstreamTimeout("The upstream could not be reached in time (connect timeout). Try again.")
        raise Failure(FailureClass.TRANSIENT, error_, 0, "connect timeout", unreachable=True) from None
    except (httpx.ConnectError, httpx.ProxyError) as reason:
        raise Failure(FailureClass.TRANSIENT, UpstreamFailed(_UNREACHABLE), 0, f"cannot connect: {reason}"[:300], unreachable=True) from None
    except (httpx.TransportError, httpx.InvalidURL, ValueError) as reason:
        raise Failure(FailureClass.UNANSWERED, UpstreamFailed(_BROKEN), 0, f"connection broke: {reason or type(reason).__name__}"[:300]) from None
    finally:
        exchange.waiting = None
        exchange.upstream_seconds += time.monotonic() - began
    upstream = Upstream(exchange, response, response.stream, channel.timeouts.idle)  # type: ignore[arg-type]  # both transports give a BodyStream
    if response.status_code == 200 and not upstream.encoded:
        return upstream
    try:
        text = b"" if response.status_code == 200 else await _error_body(upstream)
    finally:
        upstream.close()
    if response.status_code == 200 or 200 < response.status_code < 300:
        detail = f"HTTP {response.status_code} with content-encoding “{response.headers.get('content-encoding', '')}”, which was not asked for"
        raise Failure(FailureClass.TRANSIENT, UpstreamFailed(GARBAGE), response.status_code, detail)
    failure = classify(response.status_code, response.headers, text, channel.provider, rules)
    if api != "chat.completions" and response.status_code in _NO_SUCH_PATH and failure.kind in _MAY_MEAN_PATH and not _MODEL.search(text):
        message = f"The upstream of this model does not serve /v1/{api.replace('.', '/')}. Use another endpoint or another model."
        raise Failure(FailureClass.NO_API, UnsupportedEndpoint(message, param="model"), response.status_code, failure.detail, api=api)
    raise failure


async def _error_body(upstream: Upstream) -> bytes:
    text = b""
    try:
        while len(text) < _ERROR_LIMIT and (piece := await upstream.read()):
            text += piece
    except Failure:  # the status is known; half of its explanation will do
        pass
    return text[:_ERROR_LIMIT]


def from_interrupt(ended: Ended) -> Failure:
    """A limit of time that ran out, or an order to end, as the failure of an attempt."""
    reason = ended.reason
    if reason in {Interrupt.FIRST_BYTE, Interrupt.IDLE}:
        return Failure(FailureClass.TIMEOUT, timeout_error(reason), 0, reason.value)
    return Failure(FailureClass.ENDED, ended_error(reason), 0, reason.value)


def ended_error(reason: Interrupt) -> RelayError:
    """What the client of a request hears that did not end by itself."""
    if reason is Interrupt.REVOKED:
        return RequestEnded("This request was ended because its token was revoked or disabled. Use another token.")
    if reason is Interrupt.KILLED:
        return RequestEnded("This request was ended by an administrator of the portal. Ask them why before you send it again.")
    if reason is Interrupt.STOPPING:
        return Stopping("The portal is being restarted, and this request could not end before. Send it again.", retry_after=1)
    return spent() if reason is Interrupt.SPENT else timeout_error(reason)
